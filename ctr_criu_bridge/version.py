"""Which CRIU this is, as one number: major * 10000 + minor * 100 + sublevel, so 41001 is 4.10.1 and 40101 is 4.1.1."""

from ctr_common.errors import CriuError
from ctr_criu_bridge import rpc, session, swrk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# CRIU's own release notes tell since when it has what.
MINIMUM = 10502
MANAGE_CGROUPS_MODE = 10700
FEATURE_CHECK = 10800
EXTERNAL_NET_NAMESPACE = 31100
CONFIG_FILE = 31100
FREEZE_CGROUP_V2 = 31400
EXTERNAL_PID_NAMESPACE = 31500
STATUS_READY = 31500
LSM_PROFILE = 31600
LSM_MOUNT_CONTEXT = 31600
NETWORK_LOCK = 31700

DASH_V_TIMEOUT = 30


def ask(criu: str) -> tuple[int, str]:
    """The version of a CRIU: by RPC, which it has since 3.0, else by what `criu -V` prints.

    Args:
        criu: path, or name on PATH.

    Returns:
        the number, and the text that a person would call it by.

    Raises:
        CriuError: there is no CRIU, or it does not tell.
    """
    running, found, said = start(criu)
    running.close()
    return found, said


def start(
    criu: str,
    fds: "Sequence[int]" = (),
    *,
    keep_stdio: bool = False,
    started: "Callable[[swrk.Swrk], None] | None" = None,
) -> tuple[swrk.Swrk, int, str]:
    """Starts a CRIU that has told its version and waits for the request: one process where two would do it, too.

    Args:
        criu: path, or name on PATH.
        fds, keep_stdio: see swrk.Swrk.
        started: called with each CRIU that is started, while it gets ready.

    Returns:
        the running CRIU, which the caller closes; its version as of `ask`.

    Raises:
        CriuError: there is no CRIU, or it does not tell.
    """

    def start_one() -> swrk.Swrk:
        running = swrk.Swrk(criu, fds, keep_stdio=keep_stdio)
        try:
            if started is not None:
                started(running)
        except BaseException:
            running.close()
            raise
        return running

    running = start_one()
    try:
        response = session.ask(running, rpc.request("VERSION", keep_open=True))
    except CriuError:
        # older than the request, or than its going on afterwards
        running.close()
        found, said = ask_by_flag(running.path)
        return start_one(), found, said
    except BaseException:
        running.close()
        raise
    told = response.get("version", {})
    major, minor, sublevel = (told.get(name, 0) for name in ("major_number", "minor_number", "sublevel"))
    git = told.get("gitid", "")
    if major <= 0:
        return running, *ask_by_flag(running.path)
    return running, number(major, minor, sublevel, bool(git)), text(major, minor, sublevel, git)


def number(major: int, minor: int, sublevel: int, from_git: bool) -> int:
    """The number of a version; a build from git is ahead of its last release, and counts as the next minor."""
    return major * 10000 + (minor + 1) * 100 if from_git else major * 10000 + minor * 100 + sublevel


def text(major: int, minor: int, sublevel: int, git_id: str = "") -> str:
    """What a person would call a version."""
    release = f"{major}.{minor}" + (f".{sublevel}" if sublevel else "")
    return f"{release} ({git_id})" if git_id else release


def name(version: int) -> str:
    """A number as a person would write it."""
    return text(version // 10000, version // 100 % 100, version % 100)


def ask_by_flag(path: str) -> tuple[int, str]:
    """The version that `criu -V` prints.

    Raises:
        CriuError: it can't be run, or prints something else.
    """
    import subprocess

    try:
        done = subprocess.run(
            [path, "-V"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DASH_V_TIMEOUT, check=False
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise CriuError(f"unable to execute criu: {error}", path=path) from None
    return parse(done.stdout, path)


def parse(output: str, path: str = "criu") -> tuple[int, str]:
    """Reads `criu -V`: "Version: 4.1.1", and behind that "GitID: v4.1-20-gabcdef" for a build from git.

    Args:
        output: what it printed.
        path: for the error.

    Raises:
        CriuError: there is no version in it.
    """
    import re

    git = re.search(r"^GitID: v(\d+)\.(\d+)(?:\.(\d+))?-", output, re.MULTILINE)
    release = re.search(r"^Version: (\d+)\.(\d+)(?:\.(\d+))?", output, re.MULTILINE)
    found = git or release
    if found is None:
        said = output.strip().splitlines()
        raise CriuError(f'unable to parse the criu version: "{said[0] if said else ""}"', path=path)
    major, minor, sublevel = (int(part or 0) for part in found.groups())
    shown = git.string[git.start() :].splitlines()[0].removeprefix("GitID: ") if git else ""
    # A build from git behind 1.5.2 is nearer to 1.5.3 than to 1.6, and only then is its third number known.
    if git and found.group(3):
        return major * 10000 + minor * 100 + sublevel + 1, text(major, minor, sublevel, shown)
    return number(major, minor, sublevel, bool(git)), text(major, minor, sublevel, shown)


def require(version: int, minimum: int, what: str) -> None:
    """Refuses a CRIU that is too old.

    Args:
        what: what it is needed for.

    Raises:
        CriuError: it is older than `minimum`.
    """
    if version < minimum:
        raise CriuError(
            f"criu {name(version)} is too old: {what} needs {name(minimum)} or newer",
            hint="install a newer criu, or name one with --criu",
        )
