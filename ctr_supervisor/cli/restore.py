"""`ctrun restore`."""

from ctr_common.errors import CtrError
from ctr_supervisor.cli import creation, criu_flags
from ctr_supervisor.cli.criu_flags import CGROUPS_MODE, EMPTY_NS, FORMAT, NETWORK_LOCK, WORK_PATH
from ctr_supervisor.cli.parser import BOOL, Flag
from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

SWITCHES = (
    criu_flags.TCP_ESTABLISHED,
    criu_flags.TCP_CLOSE,
    criu_flags.EXT_UNIX_SK,
    criu_flags.SHELL_JOB,
    criu_flags.FILE_LOCKS,
    criu_flags.AUTO_DEDUP,
    Flag("lazy-pages", "get memory page by page, from a running 'criu lazy-pages'", BOOL),
)

VERB = Verb(
    "restore",
    "make a container of a folder of images that a checkpoint left",
    arguments="<container-id>",
    description="""\
Makes a container whose processes go on where "ctrun checkpoint" saved them.
Mounts, devices, hooks and limits are those of the bundle; nothing but the
processes comes from the images. The exit status is as of "ctrun run".""",
    flags=(
        creation.CONSOLE_SOCKET,
        Flag("image-path", "folder with the images; without it, ./checkpoint"),
        WORK_PATH,
        *SWITCHES,
        CGROUPS_MODE,
        creation.BUNDLE,
        creation.DETACH,
        creation.PID_FILE,
        Flag("no-subreaper", "do not adopt and reap orphaned processes of the container", BOOL),
        creation.NO_PIVOT,
        EMPTY_NS,
        NETWORK_LOCK,
        Flag("lsm-profile", "the security module's profile to restore with, as TYPE:NAME"),
        Flag("lsm-mount-context", "the SELinux context of mounts to restore with"),
        FORMAT,
    ),
    minimum=1,
    maximum=1,
)


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Restores the container; returns the exit status of its process, 0 when detached."""
    as_json = criu_flags.wants_json(arguments)
    detach = arguments.boolean("detach")
    rootless = surroundings.rootless_choice()
    # Named before the working directory changes.
    image_path = criu_flags.image_path(arguments)
    work_path = criu_flags.work_path(arguments)
    pid_file = creation.absolute(arguments.string("pid-file"))

    from ctr_supervisor.engine.criu_options import RestoreOptions
    from ctr_supervisor.engine.options import CreateOptions

    flags = RestoreOptions(
        image_path=image_path,
        work_path=work_path,
        flags=criu_flags.switched_on(arguments, *SWITCHES),
        cgroup_mode=criu_flags.cgroups_mode(arguments),
        network_lock=criu_flags.network_lock(arguments),
        empty_ns=criu_flags.empty_namespaces(arguments),
        lsm_profile=arguments.string("lsm-profile"),
        lsm_mount_context=arguments.string("lsm-mount-context"),
    )
    options = CreateOptions(
        console_socket=arguments.string("console-socket"),
        pid_file=pid_file,
        no_pivot=arguments.boolean("no-pivot"),
        detach=detach,
    )
    options.relayed = not detach
    bundle = creation.enter_bundle(arguments.string("bundle"))

    from ctr_supervisor.engine import criu, restore

    runtime = surroundings.runtime(rootless)
    progress = criu_flags.progress("restore") if detach else None

    def restored(result: "dict[str, Any]") -> None:
        if progress is not None:
            progress.clear()
        if detach or as_json:
            criu_flags.show(result, as_json=as_json, describe=describe)

    try:
        return restore.restore(
            runtime,
            arguments.rest[0],
            bundle,
            options,
            flags,
            detach=detach,
            no_subreaper=arguments.boolean("no-subreaper"),
            progress=progress,
            on_restored=restored,
        )
    except CtrError as error:
        if progress is not None:
            progress.clear()
        criu.tell_details(runtime, error)
        raise


def describe(result: "dict[str, Any]") -> str:
    """The figures in one line."""
    stats = result.get("stats") or {}
    took = stats.get("restore_time", 0) / 1000
    return f"restore: process {result.get('pid', 0)}, {stats.get('pages_restored', 0)} pages, {took:.0f} ms"
