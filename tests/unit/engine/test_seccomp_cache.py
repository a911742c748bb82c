"""The cache of compiled filters: what it finds, and what it refuses to believe."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctr_supervisor.engine import seccomp, seccomp_cache, seccomp_compile

ROOT = Path(__file__).parents[3]
PROFILE: Any = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"}],
}
OTHER: Any = {**PROFILE, "defaultErrnoRet": 5}


@pytest.fixture
def cache(directory: Path) -> Path:
    return directory / "parent/cache"


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Grows by one with each compilation."""
    done: list[Any] = []
    compiler = seccomp_compile.compile_profile

    def counting(section: Any, json_path: str) -> tuple[bytes, bool]:
        done.append(section)
        return compiler(section, json_path)

    monkeypatch.setattr(seccomp_compile, "compile_profile", counting)
    return done


def get(cache: Path, section: Any = PROFILE) -> bytes:
    compiled = seccomp.compile_filter(section, cache_dir=str(cache))
    assert compiled
    return compiled.bpf


def only_file(cache: Path) -> Path:
    (path,) = cache.iterdir()
    return path


def test_a_profile_is_compiled_once(cache: Path, compilations: list[Any]) -> None:
    first = get(cache)
    second = get(cache)

    assert first == second
    assert len(compilations) == 1


def test_without_a_directory_nothing_is_kept(compilations: list[Any]) -> None:
    for _ in range(2):
        seccomp.compile_filter(PROFILE)

    assert len(compilations) == 2


def test_what_decides_the_filter_tells_profiles_apart(cache: Path, compilations: list[Any]) -> None:
    sections = [PROFILE, OTHER, {**PROFILE, "architectures": ["SCMP_ARCH_X86_64"]}, {**PROFILE, "defaultErrnoRet": 6}]
    for section in sections:
        get(cache, section)

    assert len(compilations) == len(sections) == len(list(cache.iterdir()))


def test_flags_and_listener_are_not_part_of_the_filter(cache: Path, compilations: list[Any]) -> None:
    get(cache)
    section: Any = {**PROFILE, "flags": [], "listenerPath": "/x"}
    compiled = seccomp.compile_filter(section, cache_dir=str(cache))

    assert compiled
    assert compiled.flags == 0
    assert len(compilations) == 1


def test_a_notifying_filter_is_known_as_such_from_the_cache(cache: Path) -> None:
    section: Any = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
        "listenerPath": "/x",
    }
    for _ in range(2):
        compiled = seccomp.compile_filter(section, cache_dir=str(cache))
        assert compiled
        assert compiled.listener


def test_files_and_directories_are_the_owners_alone(cache: Path) -> None:
    get(cache)

    assert [path.stat().st_mode & 0o777 for path in (cache.parent, cache, only_file(cache))] == [0o700, 0o700, 0o600]


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 8)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + bytes(8))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_last_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def flip_a_bit_of_the_header(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[80] ^= 1
    path.write_bytes(data)


def become_a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def become_a_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def be_writable_by_the_group(path: Path) -> None:
    path.chmod(0o660)


def belong_to_somebody_else(path: Path) -> None:
    os.chown(path, 65534, -1)


def be_of_another_library(path: Path) -> None:
    key = bytes.fromhex(path.name)
    path.write_bytes(seccomp_cache.pack(key, bytes(8), False, "/etc/passwd").replace(b"/etc/passwd", b"/etc/shadow"))


SPOILERS = [
    truncate,
    lengthen,
    empty,
    flip_last_bit,
    flip_a_bit_of_the_header,
    become_a_link,
    become_a_fifo,
    become_a_directory,
    be_writable_by_the_group,
    pytest.param(belong_to_somebody_else, marks=pytest.mark.needs_root),
    be_of_another_library,
]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_file_that_is_not_as_it_was_written_is_not_used(
    cache: Path, compilations: list[Any], spoil: Callable[[Path], None]
) -> None:
    good = get(cache)
    spoil(only_file(cache))

    assert get(cache) == good
    assert len(compilations) == 2


def test_the_file_of_another_profile_is_not_used(cache: Path, compilations: list[Any]) -> None:
    get(cache, OTHER)
    os.link(only_file(cache), cache / seccomp_cache.profile_key(PROFILE).hex())

    assert get(cache) != get(cache, OTHER)
    assert len(compilations) == 2


@pytest.mark.parametrize(
    "spoil", [lambda path: path.chmod(0o777), pytest.param(belong_to_somebody_else, marks=pytest.mark.needs_root)]
)
def test_a_directory_that_others_may_change_is_not_used(
    cache: Path, compilations: list[Any], spoil: Callable[[Path], None]
) -> None:
    get(cache)
    spoil(cache)
    get(cache)

    assert len(compilations) == 2


def test_an_upgrade_of_the_library_is_noticed(directory: Path) -> None:
    library = directory / "libseccomp.so.2"
    library.write_bytes(b"old")
    data = seccomp_cache.pack(b"k" * 32, bytes(16), True, str(library))
    assert seccomp_cache.unpack(data, b"k" * 32) == (bytes(16), True)
    library.write_bytes(b"newer")

    assert seccomp_cache.unpack(data, b"k" * 32) is None


def test_a_place_that_cannot_be_written_costs_only_time(directory: Path) -> None:
    (directory / "file").write_text("")

    assert get(directory / "file/cache")


def test_a_directory_that_grows_too_large_loses_its_oldest_files(cache: Path) -> None:
    cache.mkdir(parents=True, mode=0o700)
    for number in range(seccomp_cache.MAX_FILES):
        path = cache / str(number)
        path.touch()
        os.utime(path, (number, number))
    get(cache)
    names = {path.name for path in cache.iterdir()}

    assert len(names) == seccomp_cache.MAX_FILES // 2 + 1
    assert seccomp_cache.profile_key(PROFILE).hex() in names
    assert str(seccomp_cache.MAX_FILES - 1) in names
    assert "0" not in names


def test_a_hit_loads_neither_the_compiler_nor_the_library(cache: Path) -> None:
    get(cache)
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from ctr_supervisor.engine import seccomp;"
        f"seccomp.compile_filter({PROFILE!r}, cache_dir={str(cache)!r});"
        "print(*sys.modules, 'libseccomp' in open('/proc/self/maps').read())"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True, timeout=30
    )
    words = result.stdout.split()

    assert words[-1] == "False"
    assert "ctr_supervisor.engine.seccomp_compile" not in words
    assert "hashlib" not in words or "_blake2" not in sys.builtin_module_names
