"""`ctrun explain`."""

import os

from ctr_common.errors import UsageError
from ctr_supervisor.cli import creation, output
from ctr_supervisor.cli.parser import Flag
from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

VERB = Verb(
    "explain",
    "print what a start would do, step by step, without doing it",
    arguments="<bundle>",
    description="""\
Prints every step by which the container of a bundle would be made and
started on this host, by the process that does it: the engine, ctr-init's
first stage, the setup worker, the container process itself. Behind each step
stands the place in config.json that asks for it. Nothing of it is done.

    # ctrun explain hello
    # ctrun explain --format json hello

With the global option "--trace FILE", a real command writes how long each
step took.""",
    flags=(
        Flag("format", "format of the list: text or json", short="f", default="text"),
        creation.NO_PIVOT,
        creation.NO_NEW_KEYRING,
    ),
    minimum=1,
    maximum=1,
)


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Prints the list."""
    form = arguments.string("format")
    if form not in ("text", "json"):
        raise UsageError("invalid format option")
    from ctr_common import step_list
    from ctr_supervisor.engine import explain
    from ctr_supervisor.engine.options import CreateOptions

    options = CreateOptions(
        no_pivot=arguments.boolean("no-pivot"), no_new_keyring=arguments.boolean("no-new-keyring"), detach=False
    )
    runtime = surroundings.runtime(surroundings.rootless_choice())
    found = explain.explain(runtime, os.path.abspath(arguments.rest[0]), options)
    if form == "json":
        output.write_json(found, "  ")
    else:
        output.write(step_list.text(found))
    return 0
