"""The entries of `.mounts`, ready to be carried out."""

from ctr_common.kernel.constants import MS_BIND, MS_REMOUNT
from ctr_common.spec import mount_options
from ctr_init import resolve, rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ctr_common.spec.types import IDMapping, Mount
    from ctr_init.plan import SetupPlan


class MountRequest:
    """What to mount where.

    Args:
        index: place in `.mounts`; -1 for a mount that follows from another one.
        destination: clean absolute path in the container.
        fstype: filesystem type.
        source: device, name, or absolute path of a bind mount.
        options: parsed options.
        words: the options as they stand in the configuration.
        uid_mappings: of an idmapped mount.
        gid_mappings: of an idmapped mount.
    """

    __slots__ = ("destination", "gid_mappings", "index", "options", "source", "type", "uid_mappings", "words")

    def __init__(
        self,
        index: int,
        destination: str,
        fstype: str,
        source: str,
        options: mount_options.MountOptions,
        words: "list[str]",
        uid_mappings: "list[IDMapping] | None" = None,
        gid_mappings: "list[IDMapping] | None" = None,
    ) -> None:
        self.index = index
        self.destination = destination
        self.type = fstype
        self.source = source
        self.options = options
        self.words = words
        self.uid_mappings = uid_mappings or []
        self.gid_mappings = gid_mappings or []

    @classmethod
    def of(cls, plan: "SetupPlan", index: int, entry: "Mount") -> "MountRequest":
        """The request of a configured mount; a relative bind source is relative to the bundle."""
        words = entry.get("options") or []
        options = mount_options.parse(words)
        fstype = entry.get("type") or ""
        source = entry.get("source") or ""
        if fstype == "bind":
            options.flags |= MS_BIND
        if options.flags & MS_BIND and not source.startswith("/"):
            source = f"{plan.bundle}/{source}"
        if not options.flags & (MS_BIND | MS_REMOUNT):
            options.read_only_from_the_top()
        destination = resolve.clean(entry["destination"])
        if destination.startswith(f"{plan.rootfs}/"):
            # As runc has it: the same place, told as a path of the host.
            destination = destination[len(plan.rootfs) :]
        return cls(
            index,
            destination,
            fstype,
            source,
            options,
            words,
            entry.get("uidMappings"),
            entry.get("gidMappings"),
        )

    @property
    def is_bind(self) -> bool:
        """Whether it shows what is at another path."""
        return bool(self.options.flags & MS_BIND)

    @property
    def is_idmapped(self) -> bool:
        """Whether the mount translates ids."""
        return bool(self.options.idmap or self.uid_mappings or self.gid_mappings)

    def shows_an_earlier_mount(self, rootfs: str) -> bool:
        """Whether the source is in the container's own tree, where an entry before this one may have mounted it."""
        return self.is_bind and self.source.startswith(f"{rootfs}/")

    @property
    def json_path(self) -> str:
        """Its place in config.json."""
        return f".mounts[{self.index}]"

    def detail(self) -> str:
        """A line for the step list."""
        what = f"{self.source} on" if self.is_bind else f"{self.type} on"
        options = ",".join(self.words)
        return f"{what} {self.destination} ({options})" if options else f"{what} {self.destination}"


def of_plan(plan: "SetupPlan") -> list[MountRequest]:
    """The requests of a configuration; none where the container has no mounts of its own."""
    if not rootfs.has_mount_namespace(plan):
        return []
    if plan.requests is None:
        entries = plan.config.get("mounts") or ()
        plan.requests = [MountRequest.of(plan, index, entry) for index, entry in enumerate(entries)]
    return plan.requests
