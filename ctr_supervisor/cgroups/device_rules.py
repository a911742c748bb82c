"""Device rules: what `.linux.resources.devices` allows, independent of how the kernel is told.

cgroup v1 keeps a default and a list of exceptions to it (devices.list; kernel: admin-guide/cgroup-v1/devices.rst).
`Emulator` does to a rule list what that kernel code would do, so that the few writes that lead from one state to
another are known in advance, and so that a rule that v1 would silently ignore is an error instead.
cgroup v2 takes the rules themselves, see devices_ebpf.py.
"""

from ctr_common.errors import CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ctr_common.spec.types import DeviceRule

    Key = tuple[str, int, int]

ANY = -1

# The values that a device program gets (linux/bpf.h, BPF_DEVCG_ACC_*).
MKNOD = 1
READ = 2
WRITE = 4
ALL = MKNOD | READ | WRITE
ACCESS = {"r": READ, "w": WRITE, "m": MKNOD}

DEVICES_PATH = ".linux.resources.devices"

# Device numbers are u32 in both kernel interfaces.
NUMBER_MAX = 0xFFFFFFFF


class Rule:
    """One rule for device nodes.

    Args:
        allow: or deny.
        kind: "b", "c", or "a" for both.
        major: ANY for all.
        minor: ANY for all.
        access: MKNOD, READ, WRITE or'ed.
    """

    __slots__ = ("access", "allow", "kind", "major", "minor")

    def __init__(self, allow: bool, kind: str = "a", major: int = ANY, minor: int = ANY, access: int = ALL) -> None:
        self.allow = allow
        self.kind = kind
        self.major = major
        self.minor = minor
        self.access = access

    def is_everything(self) -> bool:
        """Whether it concerns every access to every device, so that nothing before it counts."""
        return self.kind == "a" and self.major == ANY and self.minor == ANY and self.access == ALL

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rule) and (self.allow, str(self)) == (other.allow, str(other))

    def __hash__(self) -> int:
        return hash((self.allow, str(self)))

    def __str__(self) -> str:
        """As devices.allow and devices.deny take it."""
        major = "*" if self.major == ANY else str(self.major)
        minor = "*" if self.minor == ANY else str(self.minor)
        access = "".join(letter for letter, bit in ACCESS.items() if self.access & bit)
        return f"{self.kind} {major}:{minor} {access}"

    def __repr__(self) -> str:
        return f"<{'allow' if self.allow else 'deny'} {self}>"


# What every container gets whatever its rules say, as in runc: making any node (opening it is another matter), the
# standard devices (runtime-spec, "Default Devices"), ptmx and the pty slaves, and tun/tap, which users rely on.
DEFAULT_RULES = (
    Rule(True, "c", ANY, ANY, MKNOD),
    Rule(True, "b", ANY, ANY, MKNOD),
    Rule(True, "c", 1, 3),  # null
    Rule(True, "c", 1, 8),  # random
    Rule(True, "c", 1, 7),  # full
    Rule(True, "c", 5, 0),  # tty
    Rule(True, "c", 1, 5),  # zero
    Rule(True, "c", 1, 9),  # urandom
    Rule(True, "c", 136, ANY),  # pts/*
    Rule(True, "c", 5, 2),  # ptmx
    Rule(True, "c", 10, 200),  # net/tun
)


def from_config(devices: "Sequence[DeviceRule] | None") -> list[Rule]:
    """The rules of a configuration, then the default ones; later ones win.

    Before all of them everything is denied.

    Args:
        devices: `.linux.resources.devices`.

    Raises:
        CgroupError: a rule makes no sense.
    """
    rules = [_from_entry(entry, f"{DEVICES_PATH}[{index}]") for index, entry in enumerate(devices or ())]
    rules.extend(DEFAULT_RULES)
    return rules


def _from_entry(entry: "DeviceRule", json_path: str) -> Rule:
    kind = entry.get("type") or "a"
    if kind not in ("a", "b", "c"):
        raise CgroupError(f'invalid cgroup device type "{kind}"', json_path=f"{json_path}.type")
    access = 0
    for letter in entry.get("access") or "rwm":
        if letter not in ACCESS:
            raise CgroupError(
                f'invalid device access "{entry["access"]}", expected letters of "rwm"', json_path=f"{json_path}.access"
            )
        access |= ACCESS[letter]
    numbers = []
    for given, name in ((entry.get("major"), "major"), (entry.get("minor"), "minor")):
        number = ANY if given is None else given
        if not ANY <= number <= NUMBER_MAX:
            raise CgroupError(f"invalid device number {number}", json_path=f"{json_path}.{name}")
        numbers.append(number)
    return Rule(bool(entry.get("allow")), kind, numbers[0], numbers[1], access)


class Emulator:
    """The state of a v1 devices cgroup.

    Attributes:
        default_allow: what happens to a device that no exception names.
        exceptions: access bits by kind and numbers; all the opposite of the default.
    """

    __slots__ = ("default_allow", "exceptions")

    def __init__(self, default_allow: bool = False) -> None:
        self.default_allow = default_allow
        self.exceptions: dict[Key, int] = {}

    @classmethod
    def of_rules(cls, rules: "Iterable[Rule]") -> "Emulator":
        """The state that rules lead to, from a cgroup that denies everything.

        Raises:
            CgroupError: v1 can't express a rule.
        """
        emulator = cls()
        for rule in rules:
            emulator.apply(rule)
        return emulator

    @classmethod
    def of_list(cls, text: str) -> "Emulator":
        """The state that the contents of a devices.list describe.

        A cgroup that allows by default shows `a *:* rwm` and not its exceptions.

        Raises:
            CgroupError: they are not of the known form.
        """
        emulator = cls()
        for line in text.splitlines():
            try:
                kind, numbers, letters = line.split(" ")
                major, minor = (ANY if number == "*" else int(number) for number in numbers.split(":"))
                access = sum(ACCESS[letter] for letter in letters)
            except (KeyError, ValueError):
                raise CgroupError(f'devices.list has the line "{line}", expected TYPE MAJOR:MINOR ACCESS') from None
            emulator.apply(Rule(True, kind, major, minor, access))
        return emulator

    def apply(self, rule: Rule) -> None:
        """Does what a write of the rule to devices.allow or devices.deny does.

        Raises:
            CgroupError: v1 would ignore the rule, because it takes away a part of a wider exception.
        """
        if rule.is_everything():
            self.default_allow = rule.allow
            self.exceptions.clear()
            return
        for kind in ("b", "c") if rule.kind == "a" else (rule.kind,):
            key = (kind, rule.major, rule.minor)
            if rule.allow == self.default_allow:
                self._drop(key, rule)
            else:
                self.exceptions[key] = self.exceptions.get(key, 0) | rule.access

    def _drop(self, key: "Key", rule: Rule) -> None:
        kind, major, minor = key
        for wider in {(kind, ANY, minor), (kind, major, ANY), (kind, ANY, ANY)} - {key}:
            access = self.exceptions.get(wider, 0)
            # The kernel accepts such a write and does nothing, which would leave a false sense of security.
            if access & rule.access:
                raise CgroupError(
                    f"requested rule [{rule}] not supported by devices cgroupv1 (cannot punch hole in existing "
                    f"wildcard rule [{Rule(not rule.allow, *wider, access)}])",
                    json_path=DEVICES_PATH,
                )
        rest = self.exceptions.get(key, 0) & ~rule.access
        if rest:
            self.exceptions[key] = rest
        else:
            self.exceptions.pop(key, None)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Emulator)
            and self.default_allow == other.default_allow
            and self.exceptions == other.exceptions
        )

    __hash__ = None  # type: ignore[assignment]  # it changes

    def transition(self, target: "Emulator") -> list[Rule]:
        """The writes that lead from this state to another, as few as can be.

        A running container keeps what both states allow: nothing is taken away to be given back, unless the default
        changes or the exceptions of this state can't be known (devices.list does not show those of an allowing one).
        """
        rules = []
        old = self.exceptions
        if self.default_allow or target.default_allow:
            rules.append(Rule(target.default_allow))
            old = {}
        for key in sorted(old):
            dropped = old[key] & ~target.exceptions.get(key, 0)
            if dropped:
                rules.append(Rule(target.default_allow, *key, dropped))
        for key in sorted(target.exceptions):
            gained = target.exceptions[key] & ~old.get(key, 0)
            if gained:
                rules.append(Rule(not target.default_allow, *key, gained))
        return rules
