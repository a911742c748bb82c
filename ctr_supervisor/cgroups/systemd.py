"""The cgroups of one container that a service manager makes: a transient scope with delegation (systemd.scope(5)).

systemd makes the scope around the container's first process, so it exists from `apply` on; limits that are set before
go along with it. What systemd has no property for is then written to the files, in what it has delegated.
"""

import os

from ctr_common.errors import CgroupError
from ctr_supervisor.cgroups import (
    files,
    ownership,
    subcgroups,
    systemd_annotations,
    systemd_properties,
    v1,
    v1_resources,
    v2,
)
from ctr_supervisor.cgroups.hierarchies import (
    CGROUP_ROOT,
    CONTROLLERS,
    Hierarchies,
    clean,
    hierarchies,
    join,
    parse_proc_cgroup,
)
from ctr_supervisor.cgroups.systemd_bus import (
    MANAGER,
    UNIT_EXISTS,
    Bus,
    BusError,
    Unreachable,
    require_systemd,
)
from ctr_supervisor.cgroups.systemd_names import Place, check_unit, place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ctr_common.spec.types import Config, Resources
    from ctr_supervisor.cgroups.systemd_annotations import Property

# The name of systemd's own hierarchy on v1, which nobody else may touch.
OWN_HIERARCHY = "name=systemd"

# Any release, for seeing whether values make sense before there is a process.
NEWEST = 1 << 30


class Unit:
    """The unit of one container.

    Args:
        name: such as `runc-web.scope`.
        user: it belongs to the user's service manager.
        started: it was there when it was last looked at.
        place: where it is to be made; None for one that exists.
        properties: that the configuration asks for by annotations.

    Attributes:
        resources: limits for its start, and whether they are without device rules.
        before: properties that the last change of limits replaced, as they were.
    """

    __slots__ = ("before", "name", "place", "properties", "resources", "skip_devices", "started", "user")

    def __init__(
        self,
        name: str,
        *,
        user: bool,
        started: bool,
        place: "Place | None" = None,
        properties: "Sequence[Property]" = (),
    ) -> None:
        self.name = name
        self.user = user
        self.started = started
        self.place = place
        self.properties = list(properties)
        self.resources: Resources = {}
        self.skip_devices = False
        self.before: list[Property] = []

    def connect(self) -> Bus:
        """A connection to the manager that it belongs to."""
        return Bus(user=self.user)

    def state(self) -> "dict[str, Any]":
        """What state.json keeps of it; nothing until it is there, so that nobody ends somebody else's."""
        return {"systemd": {"unit": self.name, "user": self.user}} if self.started else {}

    def start(self, bus: Bus, pid: int, accounting: str, limits: "list[Property]") -> None:
        """Makes it around a process.

        Args:
            bus: to its manager.
            pid: the process; it can't go into a slice.
            accounting: property for the accounting of block I/O, which has another name on v1.
            limits: properties.
        """
        assert self.place is not None
        made: list[Property] = [("Description", ("s", f"libcontainer container {self.place.name}"))]
        if self.place.is_slice():
            # The name of a slice says where it is.
            made.append(("Wants", ("as", [self.place.slice])))
        else:
            made += [
                ("Slice", ("s", self.place.slice)),
                ("Delegate", ("b", True)),
                ("PIDs", ("au", [pid])),
            ]
        made += [
            ("MemoryAccounting", ("b", True)),
            ("CPUAccounting", ("b", True)),
            (accounting, ("b", True)),
            ("TasksAccounting", ("b", True)),
            ("DefaultDependencies", ("b", False)),
        ]
        try:
            bus.start_transient(self.name, [*made, *self.properties, *limits])
        except CgroupError as error:
            # Only a refusal means that there is none; one that failed or came too late is ours to end.
            self.started = not isinstance(error, BusError)
            raise error.within(f"unable to start unit {self.name}") from None
        self.started = True

    def change(self, bus: Bus, limits: "list[Property]") -> "list[Property]":
        """Changes limits of the unit; returns those that it had."""
        if not limits:
            return []
        try:
            current = bus.unit_properties(self.name)
            bus.set_properties(self.name, limits)
        except CgroupError as error:
            raise error.within(f"unable to set unit properties of {self.name}") from None
        return [(name, current[name]) for name in dict(limits) if name in current]

    def change_back(self, bus: Bus, limits: "list[Property]") -> None:
        """Makes the limits what they were, as far as possible: another failure is being told of."""
        try:
            bus.set_properties(self.name, limits)
        except CgroupError:
            pass

    def stop(self) -> "CgroupError | None":
        """Ends it; returns what went wrong, since there are still directories to be removed.

        Where the manager can't be reached nothing is lost: it ends a scope by itself once that is empty.
        """
        if not self.started:
            return None
        try:
            with self.connect() as bus:
                bus.stop(self.name)
        except Unreachable:
            return None
        except CgroupError as error:
            return error
        self.started = False
        return None

    def attach(self, pid: int, below: str) -> None:
        """Has the manager move a process here, where we may not do it ourselves."""
        with self.connect() as bus:
            bus.attach(self.name, below, pid)


class V2(v2.Manager):
    """See ctr_supervisor.cgroups.manager.Manager, and v2.Manager for the arguments.

    Args:
        paths: see there.
        unit: the container's.
        rootless: see there.
        owner: see there.
    """

    __slots__ = ("unit",)

    def __init__(self, paths: "dict[str, str]", unit: Unit, *, rootless: bool, owner: "int | None" = None) -> None:
        super().__init__(paths, rootless=rootless, chosen=True, owner=owner)
        self.unit = unit

    def create(self) -> None:
        """Makes sure that the unit can be made; that happens around the first process."""
        self._check_unused()

    def clone_fd(self) -> "int | None":
        """Fd for CLONE_INTO_CGROUP, once the unit is there."""
        return super().clone_fd() if self.unit.started else None

    def set(self, resources: "Resources", *, skip_devices: bool = False) -> None:
        """Sets limits; those for a unit that is not there yet at its start."""
        if not self.unit.started:
            systemd_properties.v2(resources, lambda: NEWEST, skip_devices=skip_devices)
            self.unit.resources, self.unit.skip_devices = resources, skip_devices
            return
        with self.unit.connect() as bus:
            limits = systemd_properties.v2(resources, bus.version, skip_devices=skip_devices)
            before = self.unit.change(bus, limits)
            try:
                super().set(systemd_properties.with_rounded_quota(resources), skip_devices=skip_devices)
            except CgroupError:
                self.unit.change_back(bus, before)
                raise
            self.unit.before = before

    def take_back(self) -> None:
        """Tells systemd the limits that the last `set` replaced: it would write its own idea of them one day."""
        if self.unit.before:
            with self.unit.connect() as bus:
                bus.set_properties(self.unit.name, self.unit.before)

    def apply(self, pid: int) -> None:
        """Has the unit made around the first process, with its limits."""
        unit = self.unit
        self._resources = unit.resources
        with unit.connect() as bus:
            limits = systemd_properties.v2(unit.resources, bus.version, skip_devices=unit.skip_devices)
            start(self, bus, pid, "IOAccounting", limits)
        # It has what systemd manages. The other controllers, hugetlb and rdma among them, are handed down to it here.
        self._create()
        super().apply(pid)
        self._hand_over()
        super().set(systemd_properties.with_rounded_quota(unit.resources), skip_devices=unit.skip_devices)

    def add_pid(self, pid: int, cgroup: "str | Sequence[str] | None" = None, init_pid: int = 0) -> None:
        """Moves another process; by way of the service manager where we may not."""
        path = subcgroups.choose(self.paths, cgroup)[""]
        context = f"error adding pid {pid} to cgroups"
        # What the one above would leave to chance as rootless is possible here.
        self._rootless, rootless = False, self._rootless
        try:
            super().add_pid(pid, cgroup, init_pid)
        except CgroupError as error:
            if error.errno not in files.DENIED:
                raise
            try:
                self._attach(pid, path, 0 if cgroup else init_pid)
            except CgroupError as refusal:
                raise refusal.within(context) from None
        finally:
            self._rootless = rootless

    def _attach(self, pid: int, path: str, init_pid: int) -> None:
        top = self._path()
        try:
            self.unit.attach(pid, path[len(top) + 1 :])
        except BusError:
            # As in the one above: the container may have moved its processes down.
            inits = join(CGROUP_ROOT, parse_proc_cgroup(init_pid).get("", "")) if init_pid else ""
            if not inits.startswith(f"{top}/"):
                raise
            self.unit.attach(pid, inits[len(top) + 1 :])

    def destroy(self) -> None:
        """Ends the unit and removes what is left of it."""
        if not self._somebody_elses:
            problem = self.unit.stop()
            super().destroy()
            if problem is not None:
                raise problem


class V1(v1.Manager):
    """See ctr_supervisor.cgroups.manager.Manager, and v1.Manager for the arguments.

    Args:
        paths: see there.
        unit: the container's.
    """

    __slots__ = ("unit",)

    def __init__(self, paths: "dict[str, str]", unit: Unit) -> None:
        super().__init__(paths, rootless=False, chosen=True)
        self.unit = unit

    def create(self) -> None:
        """Makes sure that the unit can be made; that happens around the first process."""
        self._check_unused()

    def clone_fd(self) -> "int | None":
        """Fd for CLONE_INTO_CGROUP, once the unit is there."""
        return super().clone_fd() if self.unit.started else None

    def entry_fds(self, in_v2: bool) -> "list[int] | None":
        """Files to enter by, once the unit is there."""
        return super().entry_fds(in_v2) if self.unit.started else None

    def set(self, resources: "Resources", *, skip_devices: bool = False) -> None:
        """Sets limits; those for a unit that is not there yet at its start."""
        if not self.unit.started:
            if resources.get("unified"):
                super().set(resources)
            systemd_properties.v1(resources, lambda: NEWEST, skip_devices=skip_devices)
            self.unit.resources, self.unit.skip_devices = resources, skip_devices
            return
        with self.unit.connect() as bus:
            limits = systemd_properties.v1(resources, bus.version, skip_devices=skip_devices)
            before = self._unseen(bus, skip_devices, lambda: self.unit.change(bus, limits))
            try:
                super().set(systemd_properties.with_rounded_quota(resources), skip_devices=skip_devices)
            except CgroupError:
                self.unit.change_back(bus, before)
                raise
            self.unit.before = before

    def take_back(self) -> None:
        """Tells systemd the limits that the last `set` replaced: it would write its own idea of them one day."""
        if self.unit.before:
            with self.unit.connect() as bus:
                self._unseen(bus, True, lambda: bus.set_properties(self.unit.name, self.unit.before))

    def _unseen(self, bus: Bus, skip_devices: bool, change: "Callable[[], Any]") -> "Any":
        """Makes a change, with the container frozen meanwhile if it would see its devices vanish."""
        freeze = self._must_freeze(bus, skip_devices)
        if freeze:
            self.freeze()
        try:
            return change()
        finally:
            if freeze:
                self.thaw()

    def _must_freeze(self, bus: Bus, skip_devices: bool) -> bool:
        """Whether the container would see its devices vanish for a moment.

        systemd denies everything, then allows one by one, and does it at any change of a unit with device rules.
        """
        if "freezer" not in self.paths or self.frozen():
            return False
        if not skip_devices:
            return True
        try:
            found = bus.unit_properties(self.unit.name)
            return found["DevicePolicy"][1] != "auto" or bool(found["DeviceAllow"][1])
        except (BusError, KeyError):
            return True

    def apply(self, pid: int) -> None:
        """Has the unit made around the first process, and joins the hierarchies that systemd does not manage."""
        unit = self.unit
        self._resources = unit.resources
        with unit.connect() as bus:
            limits = systemd_properties.v1(unit.resources, bus.version, skip_devices=unit.skip_devices)
            start(self, bus, pid, "BlockIOAccounting", limits)
        for controller, path in self.paths.items():
            # A scope has its process; a slice gets none from systemd.
            if controller == OWN_HIERARCHY and not unit.name.endswith(".slice"):
                continue
            self._made += files.make(path)
            if controller == "cpuset":
                v1_resources.prepare_cpuset(path, unit.resources)
            files.enter(path, pid)
        super().set(systemd_properties.with_rounded_quota(unit.resources), skip_devices=unit.skip_devices)

    def destroy(self) -> None:
        """Ends the unit and removes what is left of it, and what systemd does not know of."""
        if not self._somebody_elses:
            problem = self.unit.stop()
            super().destroy()
            if problem is not None:
                raise problem


def start(manager: "V1 | V2", bus: Bus, pid: int, accounting: str, limits: "list[Property]") -> None:
    """Starts the unit of a manager; one that exists is somebody else's and not touched later."""
    try:
        manager.unit.start(bus, pid, accounting, limits)
    except BusError as error:
        manager._somebody_elses = error.name == UNIT_EXISTS
        raise


def for_container(config: "Config", container_id: str, *, rootless_cgroups: bool) -> "V1 | V2":
    """The cgroups for a new container; nothing is made yet.

    Args:
        config: the validated configuration; its `cgroupsPath` reads `slice:prefix:name`.
        container_id: name of the unit if the configuration has none.
        rootless_cgroups: the user's service manager is asked instead of the system's.

    Raises:
        CgroupError: the path or an annotation makes no sense; the user's service manager can't be reached.
        NotSupported: this host does not run systemd.
    """
    require_systemd()
    linux = config.get("linux") or {}
    properties = systemd_annotations.properties(config.get("annotations") or {})
    user = rootless_cgroups and not manages_system()
    found = hierarchies()
    where = place(linux.get("cgroupsPath") or "", container_id, user=user)
    unit = Unit(where.unit, user=user, started=False, place=where, properties=properties)
    if found.mode == "unified":
        top = "/"
        if user:
            with unit.connect() as bus:
                top = str(bus.get(MANAGER, "ControlGroup"))
        path = join(CGROUP_ROOT, clean(f"{top}/{where.path()}"))
        return V2({"": path}, unit, rootless=rootless_cgroups, owner=ownership.owner(config))
    if user:
        raise CgroupError("cannot use rootless systemd cgroups manager on cgroup v1")
    return V1(v1_paths(where, found), unit)


def v1_paths(where: Place, found: Hierarchies) -> "dict[str, str]":
    """The cgroup of a unit in each v1 hierarchy, then in a hybrid host's v2 one."""
    return {
        controller: join(found.mounts[controller], where.path())
        for controller in (*CONTROLLERS, "")
        if controller in found.mounts
    }


def from_state(paths: "dict[str, str]", state: "dict[str, Any]", *, rootless_cgroups: bool) -> "V1 | V2":
    """The cgroups of a container that exists.

    Args:
        paths: as manager.from_paths.
        state: what state.json has as "systemd".
        rootless_cgroups: as at creation.

    Raises:
        CgroupError: state.json names no unit.
    """
    name = str(state.get("unit", ""))
    check_unit(name)
    unit = Unit(name, user=bool(state.get("user")), started=True)
    if list(paths) == [""]:
        return V2(paths, unit, rootless=rootless_cgroups)
    return V1(paths, unit)


def manages_system() -> bool:
    """Whether root of a user namespace has a systemd of the whole system to it, as in a system container.

    The answer is in whose the service manager of "the user" is: root's own, or that of the user behind root. Real root
    who asks for rootless cgroups, by `--rootless=true`, means the manager of its own session, as with runc.
    """
    from ctr_common.userns import in_initial_user_namespace

    if os.geteuid() != 0 or in_initial_user_namespace():
        return False
    try:
        with Bus(user=True) as bus:
            return owner_of(str(bus.get(MANAGER, "ControlGroup"))) == 0
    except CgroupError:
        return True


def owner_of(cgroup: str) -> int:
    """The uid whose session or service manager a cgroup belongs to (sd_pid_get_owner_uid(3)); 0 for none."""
    for part in cgroup.split("/"):
        uid = part.removeprefix("user-").removesuffix(".slice")
        if len(uid) == len(part) - len("user-.slice") and uid.isascii() and uid.isdigit():
            return int(uid)
    return 0
