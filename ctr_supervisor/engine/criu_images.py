"""A folder of images as what it is: input that somebody else may have made.

CRIU opens images by name and follows links. So there must be none but `parent`, by which an image of memory refers to
an earlier one, and the folder is seen through a mount that follows none while CRIU reads it.
"""

import os
import stat

from ctr_common import fastjson
from ctr_common.errors import CriuError, CtrError
from ctr_common.fd import Fd
from ctr_common.folders import open_folder, read_beneath, without_symlinks
from ctr_supervisor.engine.criu_options import DESCRIPTORS_FILE

PARENT = "parent"
# A chain of pre-dumps this long is a loop, or an attack.
PARENTS_MAX = 1024
DESCRIPTORS_MAX = 64 * 1024
STDIO = 3


def open_images(path: str) -> Fd:
    """The folder for CRIU to read from.

    Args:
        path: from the command line; links in it are the caller's own.

    Raises:
        CtrError: it is not there, or holds a link.
    """
    folder = open_folder(path, "image path")
    try:
        if not check_folder(folder, path):
            return without_symlinks(folder)
        check_parents(path)
        return folder
    except BaseException:
        folder.close()
        raise


def check_folder(folder: Fd, path: str) -> bool:
    """Makes sure that a folder has plain files only; whether it has a link to a parent.

    Raises:
        CriuError: it has something else.
    """
    has_parent = False
    for entry in os.scandir(folder.fileno()):
        kind = entry.stat(follow_symlinks=False).st_mode
        if stat.S_ISLNK(kind) and entry.name == PARENT:
            has_parent = True
        elif stat.S_ISLNK(kind):
            raise CriuError("the image path has a symlink, which no checkpoint makes", path=f"{path}/{entry.name}")
        elif not (stat.S_ISREG(kind) or stat.S_ISDIR(kind) or stat.S_ISSOCK(kind)):
            raise CriuError("the image path has something other than files", path=f"{path}/{entry.name}")
    return has_parent


def check_parents(path: str) -> None:
    """Follows the links to parents, which must be relative, and lead to folders like the first one.

    Raises:
        CriuError: one is something else.
    """
    for _ in range(PARENTS_MAX):
        link = f"{path}/{PARENT}"
        target = os.readlink(link)
        if target.startswith("/"):
            raise CriuError(f"the link to the parent image is absolute: {target}", path=link)
        # A component that is a link itself could lead anywhere at the moment when CRIU goes there.
        path = os.path.normpath(os.path.join(os.path.realpath(path), target))
        if os.path.realpath(path) != path:
            raise CriuError("the link to the parent image leads through other links", path=link)
        with open_folder(path, "parent image") as folder:
            if not check_folder(folder, path):
                return
    raise CriuError(f"more than {PARENTS_MAX} parent images", path=path)


def inherited_pipes(images: Fd) -> "list[list[object]]":
    """Which of the dumped process's stdio were pipes to the outside: their names in the images, and our fds for them.

    Raises:
        CriuError: the file that tells is missing, or is none of ours.
    """
    try:
        described = fastjson.loads(read_beneath(images, DESCRIPTORS_FILE, DESCRIPTORS_MAX))
    except FileNotFoundError:
        hint = "the folder is from a pre-dump, or from another program"
        raise CriuError(f"the image path has no {DESCRIPTORS_FILE}", hint=hint) from None
    except (OSError, ValueError, CtrError) as error:
        raise CriuError(f"cannot read {DESCRIPTORS_FILE} of the image path: {error}") from None
    if not isinstance(described, list) or len(described) > STDIO or not all(isinstance(it, str) for it in described):
        raise CriuError(f"{DESCRIPTORS_FILE} of the image path is not a list of at most {STDIO} texts")
    return [[name, fd] for fd, name in enumerate(described) if is_pipe(name)]


def is_pipe(name: str) -> bool:
    """Whether it is `pipe:[inode]`."""
    return name.startswith("pipe:[") and name.endswith("]") and name[6:-1].isascii() and name[6:-1].isdigit()
