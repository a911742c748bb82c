"""Imports from one file: the compiled modules of the command line, packed by scripts/pack.py, installed by a launcher.

    MAGIC_NUMBER of the interpreter · marshalled (code of this module, index) · marshalled code of each module

Importing the usual way looks for each module in each place and reads a file for it. A pack is read once. It stands
where the compiled modules stand that Python would read instead, so whoever could change it could change those. A module
whose source is not the one that was packed is left to Python, as is one that is not in the pack.
"""

import marshal
import posix
import sys
from _frozen_importlib import ModuleSpec, module_from_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    # path of the source; its mtime in ns and size, None for a source that never changes; whether it is a package; the
    # packed modules that it imports at module level; place of its code, counted from the end of the pack; length of it
    Entry = tuple[str, tuple[int, int] | None, bool, tuple[str, ...], int, int]


class Pack:
    """Finder and loader of the modules in one pack.

    Args:
        index: what is in it, by the module's name.
        data: the whole pack.
    """

    def __init__(self, index: "dict[str, Entry]", data: memoryview) -> None:
        self.index = index
        self.data = data

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """The module's spec; None if it is not in the pack, or its source has changed since."""
        entry = self.index.get(name)
        if entry is None:
            return None
        source, version, is_package, _, _, _ = entry
        if version is not None:
            try:
                status = posix.stat(source)
            except OSError:
                return None
            if (status.st_mtime_ns, status.st_size) != version:
                return None
        spec = ModuleSpec(name, self, origin=source, is_package=is_package)  # type: ignore[arg-type]  # see `install`
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(source.rpartition("/")[0])
        return spec

    def create_module(self, spec: ModuleSpec) -> None:
        """An ordinary module will do."""

    def exec_module(self, module: "ModuleType") -> None:
        """Fills a module."""
        source, _, _, imports, start, length = self.index[module.__name__]
        module.__file__ = source
        for name in imports:
            if name not in sys.modules:
                self._load(name)
        start += len(self.data)
        exec(marshal.loads(self.data[start : start + length]), module.__dict__)

    def _load(self, name: str) -> None:
        """Imports what an import statement is about to ask for, past importlib: 25 µs less for each module."""
        spec = self.find_spec(name)
        if spec is None:
            return
        module = sys.modules[name] = module_from_spec(spec)
        try:
            self.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
        parent, _, leaf = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], leaf, module)


def install(index: "dict[str, Entry]", data: memoryview) -> None:
    """Has imports look into a pack first."""
    # importlib asks for the methods alone; its abstract classes would cost an import
    sys.meta_path.insert(0, Pack(index, data))
