"""`ctrun update`."""

from ctr_common.errors import CgroupError, ConfigError, UsageError
from ctr_common.log import quote
from ctr_supervisor.cli import quantities
from ctr_supervisor.cli.parser import INT, OUT_OF_RANGE, Flag, parse_int
from ctr_supervisor.cli.verb import Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ctr_common.spec.types import Resources
    from ctr_supervisor.cli.parser import Arguments
    from ctr_supervisor.cli.surroundings import Surroundings

VERB = Verb(
    "update",
    "change the limits of a container",
    arguments="<container-id>",
    description="""\
What is not given, or given as 0 or "", stays as it is; -1 takes a limit
away. Sizes are in bytes, or end in k, m, g, t or p.

    # ctrun update --memory 512m --cpu-quota 50000 web

With --resources the limits come from a file (or, for "-", from standard
input) in the form of .linux.resources of config.json, and all other limits
on the command line are ignored:

    # echo '{"pids": {"limit": 64}}' | ctrun update --resources - web

If a limit can't be set, none is changed. Device rules are never changed.""",
    flags=(
        Flag("resources", "file with the limits, or '-' for standard input", short="r"),
        Flag("blkio-weight", "weight of block I/O, from 10 to 1000", INT),
        Flag("cpu-period", "period of the CPU quota in microseconds"),
        Flag("cpu-quota", "CPU time in each period in microseconds, -1 for no limit"),
        Flag("cpu-burst", "unused CPU time that may be saved up, in microseconds"),
        Flag("cpu-share", "weight of CPU time among containers, from 2 to 262144"),
        Flag("cpu-rt-period", "period of the real-time CPU limit in microseconds (cgroup v1)"),
        Flag("cpu-rt-runtime", "real-time CPU time in each period in microseconds (cgroup v1)"),
        Flag("cpuset-cpus", "CPUs to use, such as '0-2,4'"),
        Flag("cpuset-mems", "memory nodes to use, such as '0,1'"),
        Flag("cpu-idle", "1 for CPU time that nobody else wants only, 0 for the usual share"),
        Flag("kernel-memory", ""),
        Flag("kernel-memory-tcp", ""),
        Flag("memory", "limit on memory, -1 for none"),
        Flag("memory-reservation", "memory that is left to the container when memory is short"),
        Flag("memory-swap", "limit on memory and swap together, -1 for no limit on swap"),
        Flag("pids-limit", "largest number of processes, -1 for no limit", INT),
        Flag("l3-cache-schema", "schema of the L3 cache for Intel RDT"),
        Flag("mem-bw-schema", "schema of the memory bandwidth for Intel RDT"),
    ),
    minimum=1,
    maximum=1,
)

# Flag, section, key.
UNSIGNED = (
    ("cpu-burst", "cpu", "burst"),
    ("cpu-period", "cpu", "period"),
    ("cpu-rt-period", "cpu", "realtimePeriod"),
    ("cpu-share", "cpu", "shares"),
)
SIGNED = (
    ("cpu-quota", "cpu", "quota"),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime"),
    ("cpu-idle", "cpu", "idle"),
)
SIZES = (
    ("memory", "memory", "limit"),
    ("memory-swap", "memory", "swap"),
    ("kernel-memory", "memory", "kernel"),
    ("kernel-memory-tcp", "memory", "kernelTCP"),
    ("memory-reservation", "memory", "reservation"),
)
UINT64_MAXIMUM = 2**64 - 1
STDIN = 0
INPUT_LIMIT = 64 << 20  # bytes


def run(surroundings: "Surroundings", arguments: "Arguments") -> int:
    """Changes the limits."""
    from ctr_supervisor.engine import container, update

    container_id = arguments.rest[0]
    runtime = surroundings.runtime()
    # A container that does not exist is told before anything else: engines look for that.
    container.load(runtime, container_id)
    source = arguments.string("resources")
    changes = read(source) if source else from_flags(arguments)
    try:
        update.update(
            runtime,
            container_id,
            changes,
            l3_cache=arguments.string("l3-cache-schema"),
            mem_bw=arguments.string("mem-bw-schema"),
        )
    except CgroupError as error:
        if not source:
            # Nobody wrote JSON here.
            error.json_path = ""
        raise
    return 0


def from_flags(arguments: "Arguments") -> "Resources":
    """The limits that the flags ask for.

    Raises:
        UsageError: a value is none.
    """
    found: dict[str, Any] = {"memory": {}, "cpu": {}, "blockIO": {}, "pids": {}}
    found["blockIO"]["weight"] = arguments.integer("blkio-weight")
    found["cpu"]["cpus"] = arguments.string("cpuset-cpus")
    found["cpu"]["mems"] = arguments.string("cpuset-mems")
    for table, parse in ((UNSIGNED, _unsigned), (SIGNED, _signed), (SIZES, _size)):
        for flag, section, key in table:
            text = arguments.string(flag)
            if text:
                try:
                    found[section][key] = parse(text)
                except ValueError as error:
                    raise UsageError(f"invalid value for {flag}: {error}") from None
    found["pids"]["limit"] = arguments.integer("pids-limit")
    return found  # type: ignore[return-value] # made key by key


def _size(text: str) -> int:
    return -1 if text == "-1" else quantities.parse_size(text)


def _signed(text: str) -> int:
    try:
        return parse_int(text)
    except ValueError as error:
        raise ValueError(f"strconv.ParseInt: parsing {quote(text)}: {error}") from None


def _unsigned(text: str) -> int:
    complaint = f"strconv.ParseUint: parsing {quote(text)}: "
    if not (text.isascii() and text.isdigit()):
        raise ValueError(complaint + "invalid syntax")
    if len(text.lstrip("0")) > 20 or int(text) > UINT64_MAXIMUM:
        raise ValueError(complaint + OUT_OF_RANGE)
    return int(text)


def read(source: str) -> "Resources":
    """The limits in a file.

    Args:
        source: its path; "-" for standard input.

    Raises:
        ConfigError: it can't be read, or is not what it should be.
    """
    from ctr_common.spec import load, schema

    try:
        data = read_stdin() if source == "-" else load.read_file(source)
    except OSError as error:
        raise ConfigError(f"open {source}", errno=error.errno or 0) from None
    found: Resources = load.parse(data, schema.RESOURCES, "standard input" if source == "-" else source)
    return found


def read_stdin() -> bytes:
    """Standard input to its end.

    Raises:
        ConfigError: it is too long.
    """
    import os

    parts = []
    left = INPUT_LIMIT
    while part := os.read(STDIN, 65536):
        parts.append(part)
        left -= len(part)
        if left < 0:
            raise ConfigError(f"standard input: longer than {INPUT_LIMIT >> 20} MiB")
    return b"".join(parts)
