"""What the bridge knows without a CRIU: versions, messages, logs, causes, statistics."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest

from ctr_common.errors import CriuError, UsageError, from_dict
from ctr_criu_bridge import hints, log_errors, main, options, rpc, session, stats, version

LOG = """\
(00.000001) Version: 4.1.1
(00.039543) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
(00.1) one
(00.2) two
(00.3) three
(00.4) four
(00.5) five
(00.6) six
(00.7) Error (criu/sk-inet.c:191): inet: Connected TCP socket, consider using --tcp-established option.
(00.8) seven
(00.9) Error (criu/cr-dump.c:2111): Dumping FAILED.
""".splitlines()


@pytest.mark.parametrize(
    ("output", "number"),
    [
        ("Version: 4.1.1\n", 40101),
        ("Version: 3.17\n", 31700),
        ("Version: 1.5.2\n", 10502),
        ("Version: 1.5.2\nGitID: v1.5.2-40-gabcdef0\n", 10503),
        ("Version: 4.1\nGitID: v4.1-20-gabcdef0\n", 40200),
        ("warning\nVersion: 2.12.1\n", 21201),
    ],
)
def test_the_output_of_criu_v_is_a_number(output: str, number: int) -> None:
    assert version.parse(output)[0] == number


@pytest.mark.parametrize("output", ["", "Version: x", "criu\n", "GitID: nonsense"])
def test_other_output_is_no_version(output: str) -> None:
    with pytest.raises(CriuError, match="unable to parse the criu version"):
        version.parse(output)


def test_a_build_from_git_counts_as_the_next_minor() -> None:
    assert version.number(3, 17, 1, True) == 31800
    assert version.number(3, 17, 1, False) == 31701
    assert version.text(4, 1, 1, "v4.1.1-5-gabc") == "4.1.1 (v4.1.1-5-gabc)"


def test_what_is_too_old_is_told_with_both_versions() -> None:
    with pytest.raises(CriuError, match="criu 3.5 is too old: --lsm-profile needs 3.16 or newer"):
        version.require(30500, version.LSM_PROFILE, "--lsm-profile")


def test_messages_have_the_numbers_of_criu_on_the_wire() -> None:
    request = rpc.request("RESTORE", opts={"images_dir_fd": 5, "rst_sibling": True, "network_lock": 3})
    assert rpc.encode("req", request) == b"\x08\x02\x12\x08\x08\x05\xd0\x01\x01\x80\x04\x03"
    answer = rpc.decode("resp", b"\x08\x06\x10\x01\x2a\x0c\x0a\x08pre-dump\x10\x07")
    assert answer == {"type": 6, "success": True, "notify": {"script": "pre-dump", "pid": 7}}


def test_messages_come_back_as_they_were_sent() -> None:
    values = {
        "images_dir_fd": -1,
        "leave_running": False,
        "log_file": "déjà\udcff",
        "ghost_limit": 2**32 - 1,
        "ps": {"address": "::1", "port": 300},
        "ext_mnt": [{"key": "/a", "val": ""}, {"key": "/b", "val": "x" * 300}],
        "external": ["one", "two"],
    }
    assert rpc.decode("opts", rpc.encode("opts", values)) == values


def test_fields_that_nobody_knows_are_left_out() -> None:
    unknown = b"\xf8\x07\x05" + b"\xfa\x07\x02ab" + b"\xf9\x07" + bytes(8) + b"\xfd\x07" + bytes(4)
    assert rpc.decode("features", unknown + b"\x08\x01") == {"mem_track": True}
    # of another layout than the schema's
    assert rpc.decode("features", b"\x0a\x01x") == {}


@pytest.mark.parametrize(
    "data",
    [
        b"\x08",
        b"\x08" + b"\xff" * 11,
        b"\x08\x06",
        b"\x08\x06\x10\x01\x2a\x0cpre",
        b"\x08\x06\x10\x01\x2a\x02\x0a\x05",
        b"\x08\x06\x10\x01\x0b",
        b"\x08\x06\x10\x01\xfd\x07\x00",
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(rpc.DecodeError):
        rpc.decode("resp", data)


@pytest.mark.parametrize("values", [{"pid": 1}, {"images_dir_fd": 1, "nosuch": 2}])
def test_a_message_with_fields_amiss_is_not_sent(values: dict) -> None:
    with pytest.raises(ValueError, match=r"opts\b.*\b(images_dir_fd|nosuch)\b"):
        rpc.encode("opts", values)


def test_wishes_become_options() -> None:
    filled: dict = {"images_dir_fd": 3}
    wishes = {
        "leave_running": True,
        "external_mounts": [["/a", "b"]],
        "external_namespaces": [["net", 7], ["pid", 8]],
        "cgroup_mode": "full",
        "network_lock": "skip",
        "page_server": ["::1", 99],
        "freeze_cgroup": "/sys/fs/cgroup/x",
        "cgroup_controllers": ["cpu,cpuacct", ""],
    }
    options.check(wishes)
    options.fill(filled, wishes, 40101)
    assert filled == {
        "images_dir_fd": 3,
        "leave_running": True,
        "ext_mnt": [{"key": "/a", "val": "b"}],
        "external": ["net[7]:extRootNetNS", "pid[8]:extRootPidNS"],
        "manage_cgroups_mode": 4,
        "network_lock": 3,
        "ps": {"address": "::1", "port": 99},
        "freeze_cgroup": "/sys/fs/cgroup/x",
        "cgroup_dump_controller": ["cpu,cpuacct", ""],
    }


def test_nothing_is_said_that_nobody_asked_for() -> None:
    filled: dict = {"images_dir_fd": 3}
    options.fill(filled, {}, 40101)
    assert filled == {"images_dir_fd": 3}


def test_an_old_criu_makes_namespaces_of_its_own() -> None:
    filled: dict = {"images_dir_fd": 3}
    options.fill(filled, {"external_namespaces": [["net", 7]], "freeze_cgroup": "/x", "freeze_cgroup_v2": True}, 31000)
    assert filled == {"images_dir_fd": 3}


@pytest.mark.parametrize("wishes", [{"nosuch": 1}, {"pid": "1"}, {"leave_running": 1}, {"ghost_limit": True}])
def test_wishes_that_there_are_not_are_refused(wishes: dict) -> None:
    with pytest.raises(UsageError):
        options.check(wishes)


def test_errors_of_a_log_come_with_the_lines_before_them_and_gaps() -> None:
    assert log_errors.errors(LOG) == [
        "inet: Connected TCP socket, consider using --tcp-established option.",
        "Dumping FAILED.",
    ]
    assert list(log_errors.with_context(LOG, context=2)) == ["...", *LOG[6:9], *LOG[9:11]]
    assert list(log_errors.with_context(LOG[:8])) == []


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("inet: Connected TCP socket, consider using --tcp-established option.", "tcp"),
        ("inet: In-flight connection (l) for 5", "tcp-in-flight"),
        ("sk unix: External socket is used. Consider using --ext-unix-sk option.", "external-unix-socket"),
        ("Can't lookup mount=24 for fd=0 path=/dev/null", "file-outside"),
        ("Can't create link remap for /x. Use link-remap option.", "deleted-file"),
        ("Can't dump ghost file /x of 2097152 size, increase limit", "ghost-limit"),
        ("Some file locks are hold by dumping tasks! You can try --file-locks to dump them.", "file-locks"),
        ("Tracking memory is not available. Consider omitting --track-mem option.", "memory-tracking"),
        ("Pid 7 do not match expected 8", "pid-taken"),
        ("cg: Can't move 1 into unified//x/cgroup.procs (-1/-1): No such file or directory", "cgroups"),
        ("mnt: No mapping for 83:(null) mountpoint", "mount-external"),
        ("File bin/busybox has bad size 1 (expect 2)", "file-changed"),
        ("kerndat_tcp_repair failed when initializing kerndat.", "loopback-down"),
        ("vdso: Unexpected rt vDSO area bounds", "vdso"),
        ("sockets: Can't get 1:16 opt: Operation not supported", "vdso"),
    ],
)
def test_known_causes_are_recognised(line: str, cause: str) -> None:
    found = hints.find(["something else", line])
    assert found is not None
    assert found.name == cause


def test_an_unknown_cause_has_no_hint() -> None:
    assert hints.find(["nothing that anybody knows"]) is None


def test_statistics_are_read_from_criu_image(tmp_path: Path) -> None:
    times = {"freezing_time": 5, "frozen_time": 5, "memdump_time": 6, "memwrite_time": 6}
    pages = {"pages_scanned": 7, "pages_skipped_parent": 7, "pages_written": 7}
    body = rpc.encode("stats_entry", {"dump": {**times, **pages}})
    (tmp_path / "stats-dump").write_bytes(struct.pack("<III", 0x55105940, 0x57093306, len(body)) + body)
    (tmp_path / "broken").write_bytes(b"no image at all")
    (tmp_path / "link").symlink_to("stats-dump")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        assert stats.read(fd, "stats-dump")["pages_written"] == 7
        assert stats.read(fd, "broken") == stats.read(fd, "nosuch") == stats.read(fd, "link") == {}
    finally:
        os.close(fd)


def test_a_failure_says_what_criu_says_without_what_is_harmless() -> None:
    response: dict = {"type": 1, "success": False, "cr_errno": 22}
    response["cr_errmsg"] = f"{LOG[1].partition(' ')[2]}\nError (criu/a.c:1): why\n"
    error = session.failure(rpc.request("DUMP"), response)
    assert str(error) == "criu failed: type DUMP errno 22: why"


def test_the_lines_of_the_log_cross_processes_with_the_error() -> None:
    error = CriuError("criu failed", hint="do this")
    error.details = ("a", "b")
    copy = from_dict(json.loads(json.dumps(error.as_dict())))
    assert isinstance(copy, CriuError)
    assert (copy.details, copy.hint) == (("a", "b"), "do this")


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:x", "host:0", "host:70000"])
def test_addresses_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        main.address(text)


def test_addresses_of_both_families_are_taken() -> None:
    assert main.address("10.0.0.1:80") == ("10.0.0.1", 80)
    assert main.address("[::1]:80") == ("::1", 80)


@pytest.mark.parametrize("verb", ["", "version", "features", "check", "dump", "pre-dump", "restore", "lazy-pages"])
def test_the_help_fits_eighty_columns(verb: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([verb, "--help"] if verb else ["--help"])
    assert ended.value.code == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_a_failure_is_json_where_that_was_asked_for(capsys: pytest.CaptureFixture) -> None:
    assert main.main(["version", "--criu", "/no/such", "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["kind"] == "CriuError"
