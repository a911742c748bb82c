import copy

import pytest

from ctr_common.errors import ConfigError, UsageError
from ctr_supervisor.cli import exec as verb
from ctr_supervisor.cli import parser

CONFIG = {
    "terminal": True,
    "user": {"uid": 1, "gid": 2, "additionalGids": [3], "umask": 18},
    "args": ["sleep", "60"],
    "env": ["PATH=/bin"],
    "cwd": "/",
    "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "inheritable": ["CAP_CHOWN"]},
    "noNewPrivileges": True,
    "apparmorProfile": "confined",
    "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}],
}


def merge(*arguments, config=CONFIG):
    return verb.merge_process(config, parser.parse(arguments, verb.VERB.flags))


def test_without_flags_all_but_args_and_terminal_is_the_containers():
    expected = {**CONFIG, "args": ["ls", "-l"], "terminal": False}
    assert merge("id", "ls", "-l") == expected


def test_the_containers_own_process_is_left_as_it_is():
    config = copy.deepcopy(CONFIG)
    merge("-e", "A=1", "-c", "CAP_CHOWN", "-u", "5", "-g", "6", "id", "ls", config=config)
    assert config == CONFIG


def test_flags_after_the_id_belong_to_the_command():
    assert merge("id", "-t", "--cwd", "/tmp")["args"] == ["-t", "--cwd", "/tmp"]


def test_two_dashes_after_the_id_are_the_command():
    assert merge("id", "--", "ls")["args"] == ["--", "ls"]


def test_variables_are_added_after_those_of_the_container():
    assert merge("-e", "A=1", "-e", "PATH=/x", "id")["env"] == ["PATH=/bin", "A=1", "PATH=/x"]


def test_strings_replace_those_of_the_container():
    process = merge("--cwd", "/tmp", "--apparmor", "other", "--process-label", "label", "id")
    assert (process["cwd"], process["apparmorProfile"], process["selinuxLabel"]) == ("/tmp", "other", "label")


def test_empty_strings_replace_nothing():
    process = merge("--cwd", "", "--apparmor", "", "--user", "", "id")
    assert (process["cwd"], process["apparmorProfile"]) == ("/", "confined")
    assert process["user"]["uid"] == 1


@pytest.mark.parametrize(("flags", "terminal"), [([], False), (["-t"], True), (["-t=false"], False)])
def test_only_the_flag_asks_for_a_terminal(flags, terminal):
    assert merge(*flags, "id")["terminal"] is terminal


@pytest.mark.parametrize(
    ("flags", "value"), [([], True), (["--no-new-privs=false"], False), (["--no-new-privs"], True)]
)
def test_no_new_privs_is_the_containers_unless_given(flags, value):
    assert merge(*flags, "id")["noNewPrivileges"] is value


@pytest.mark.parametrize(("text", "uid", "gid"), [("5", 5, 2), ("5:6", 5, 6), ("0:0", 0, 0)])
def test_user_sets_the_ids_that_it_names(text, uid, gid):
    user = merge("-u", text, "id")["user"]
    assert (user["uid"], user["gid"], user["umask"]) == (uid, gid, 18)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("root", 'parsing root as int for uid failed: strconv.Atoi: parsing "root": invalid syntax'),
        ("1:wheel", 'parsing wheel as int for gid failed: strconv.Atoi: parsing "wheel": invalid syntax'),
        ("1:2:3", 'parsing 2:3 as int for gid failed: strconv.Atoi: parsing "2:3": invalid syntax'),
        ("1:", 'parsing  as int for gid failed: strconv.Atoi: parsing "": invalid syntax'),
        ("-1", "uid -1 is not in the range 0-4294967294"),
        ("4294967297", "uid 4294967297 is not in the range 0-4294967294"),
    ],
)
def test_user_must_be_numbers_in_range(text, message):
    with pytest.raises(UsageError) as caught:
        merge("-u", text, "id")
    assert str(caught.value) == message


def test_groups_are_added_to_the_containers():
    assert merge("-g", "7", "-g", "8", "id")["user"]["additionalGids"] == [3, 7, 8]


@pytest.mark.parametrize(
    ("gid", "message"),
    [("-5", "additional-gids must be a positive number -5"), ("4294967296", "additional gid 4294967296 is not in")],
)
def test_groups_must_be_in_range(gid, message):
    with pytest.raises(UsageError, match=message):
        merge("-g", gid, "id")


def test_capabilities_are_never_added_to_the_inheritable_set():
    capabilities = merge("-c", "CAP_NET_RAW", "id")["capabilities"]
    assert capabilities["bounding"] == capabilities["effective"] == ["CAP_KILL", "CAP_NET_RAW"]
    assert capabilities["permitted"] == ["CAP_NET_RAW"]
    assert capabilities["inheritable"] == ["CAP_CHOWN"]
    assert "ambient" not in capabilities


def test_a_capability_becomes_ambient_where_the_container_has_it_inheritable():
    assert merge("-c", "CAP_CHOWN", "id")["capabilities"]["ambient"] == ["CAP_CHOWN"]


def test_a_process_without_capabilities_can_be_given_some():
    process = merge("-c", "CAP_CHOWN", "id", config={"cwd": "/"})
    assert process["capabilities"]["permitted"] == ["CAP_CHOWN"]


@pytest.mark.parametrize(
    ("cwd", "message"), [("", "Cwd property must not be empty"), ("tmp", "Cwd must be an absolute path")]
)
def test_the_working_directory_must_be_absolute(cwd, message):
    with pytest.raises(ConfigError, match=message):
        verb.check_process({"cwd": cwd, "args": ["x"]})


@pytest.mark.parametrize(
    ("cgroups", "message"),
    [
        (["a:b:c"], "invalid --cgroup argument: a:b:c"),
        (["a", "b"], r"invalid --cgroup argument: a \(missing <controller>: prefix\)"),
        ([":a"], r"invalid --cgroup argument: :a \(empty <controller> prefix\)"),
        (["cpu,cpu:a"], "controller cpu specified multiple times"),
        (["cpu:a", "cpu:b"], "controller cpu specified multiple times"),
    ],
)
def test_cgroups_must_name_a_path_for_all_or_for_some_controllers(cgroups, message):
    with pytest.raises(UsageError, match=message):
        verb.check_cgroups(cgroups)


@pytest.mark.parametrize("cgroups", [[], ["sub"], ["cpu,memory:a", "pids:b"]])
def test_cgroups_may_be_given_for_all_or_for_each_controller(cgroups):
    verb.check_cgroups(cgroups)
