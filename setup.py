"""The C parts of the wheel: two extension modules, ctr-init as a file of the package ctr_init, and ctrun in bin/.

A checkout does not need this: `./dev build` runs the Makefiles in c/.
"""

import shutil
import subprocess
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = ["-std=c11", "-fvisibility=hidden"]
# data files lie in the same bin/ as scripts do; as a script setuptools would take it for a text
CLIENT = "build/client/wheel/ctrun"
RELOCATIONS = ["-Wl,-z,relro,-z,now"]


class BuildAll(build_ext):
    """Builds the extension modules, ctr-init and ctrun."""

    def run(self) -> None:
        """Adds ctr-init, which is an executable and so no extension, next to the code that runs it."""
        super().run()
        place = Path(__file__).parent if self.inplace else Path(self.build_lib)
        # make takes no target with a space in it, and the final place may have one: a relative path never has
        subprocess.run(["make", "-C", "c/nsexec", "OUT=../../build/ctr-init"], check=True)
        shutil.copy("build/ctr-init", place / "ctr_init" / "ctr-init")
        subprocess.run(["make", "-C", "c/client", f"OUT=../../{CLIENT}"], check=True)

    def get_outputs(self) -> list[str]:
        """The files that were built, ctr-init among them."""
        return [*super().get_outputs(), str(Path(self.build_lib, "ctr_init", "ctr-init"))]


setup(
    cmdclass={"build_ext": BuildAll},
    data_files=[("bin", [CLIENT])],
    ext_modules=[
        Extension(
            "ctr_common.kernel._kernel",
            sorted(glob("c/kernel/*.c")),
            depends=["c/kernel/kernel.h", "c/nsexec/protocol.def"],
            extra_compile_args=FLAGS,
            extra_link_args=RELOCATIONS,
        ),
        Extension(
            "ctr_common.kernel._seccomp",
            sorted(glob("c/seccomp/*.c")),
            libraries=["seccomp"],
            extra_compile_args=FLAGS,
            extra_link_args=RELOCATIONS,
        ),
    ],
)
