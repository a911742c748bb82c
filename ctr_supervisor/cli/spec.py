"""`ctrun spec`."""

import os

from ctr_common import fastjson
from ctr_common.errors import CtrError
from ctr_common.fd import Fd
from ctr_common.log import encode, write_all
from ctr_supervisor.cli import creation
from ctr_supervisor.cli.parser import BOOL, Flag
from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

CONFIG_FILE = "config.json"

VERB = Verb(
    "spec",
    "write a config.json to begin with",
    description="""\
Writes a file "config.json" with which a root file system in "rootfs" beside
it makes a bundle. Its process is "sh" on a terminal; edit the file for
anything else:

    # mkdir -p hello/rootfs
    # tar -C hello/rootfs -xf rootfs.tar
    # ctrun spec --bundle hello
    # sed -i 's;"sh";"/hello";' hello/config.json
    # ctrun run --bundle hello <container-id>

With "--rootless", the file suits a user without privileges: the container
gets a user namespace in which this user is root.""",
    flags=(
        creation.BUNDLE,
        Flag("rootless", "write a configuration for a user without privileges", BOOL),
    ),
)


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Writes the file."""
    from ctr_common.spec.default import default_config

    creation.enter_bundle(arguments.string("bundle"))
    text = fastjson.dumps(default_config(rootless=arguments.boolean("rootless")), "\t", go=True)
    try:
        # O_EXCL: whatever is there, be it a dangling link, is the user's.
        with Fd(os.open(CONFIG_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)) as fd:
            write_all(fd.fileno(), encode(text))
    except FileExistsError:
        raise CtrError(f"File {CONFIG_FILE} exists. Remove it first") from None
    except OSError as error:
        raise CtrError(f"open {CONFIG_FILE}", errno=error.errno or 0) from None
    return 0
