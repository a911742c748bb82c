import pytest

from ctr_common.errors import UsageError
from ctr_supervisor.cli import parser
from ctr_supervisor.cli.parser import BOOL, INT, INTS, OPTIONAL, STRINGS, Flag

FLAGS = (
    Flag("bundle", "", short="b"),
    Flag("force", "", BOOL, "f"),
    Flag("preserve-fds", "", INT, default=0),
    Flag("env", "", STRINGS, "e"),
    Flag("gids", "", INTS, "g"),
    Flag("format", "", default="table"),
    Flag("supervisor", "", OPTIONAL),
)


def parse(*arguments, anywhere=False):
    return parser.parse(arguments, FLAGS, flags_first=not anywhere)


@pytest.mark.parametrize(
    "form", [["-b", "x"], ["--b", "x"], ["-bundle", "x"], ["--bundle", "x"], ["-b=x"], ["--bundle=x"]]
)
def test_one_dash_and_two_are_alike(form):
    parsed = parse(*form, "id")
    assert (parsed.string("bundle"), parsed.rest) == ("x", ["id"])


@pytest.mark.parametrize("anywhere", [False, True])
@pytest.mark.parametrize(("form", "value"), [("--supervisor", ""), ("-supervisor=/x", "/x"), ("--supervisor=", "")])
def test_an_optional_value_is_never_the_next_argument(form, value, anywhere):
    parsed = parse(form, "id", anywhere=anywhere)
    assert (parsed.has("supervisor"), parsed.string("supervisor"), parsed.rest) == (True, value, ["id"])


def test_absent_flags_have_their_defaults():
    parsed = parse()
    assert not parsed.has("force")
    assert not parsed.boolean("force")
    assert parsed.string("format") == "table"
    assert parsed.string("bundle") == ""
    assert parsed.integer("preserve-fds") == 0
    assert parsed.strings("env") == []
    assert parsed.integers("gids") == []


@pytest.mark.parametrize("text", ["true", "1", "t", "T", "TRUE", "True"])
def test_booleans_take_a_value_after_an_equals_sign(text):
    assert parse(f"--force={text}").boolean("force")


def test_a_boolean_can_be_switched_off():
    parsed = parse("--force=false")
    assert parsed.has("force")
    assert not parsed.boolean("force")


def test_a_boolean_leaves_the_next_argument_alone():
    assert parse("-f", "false").rest == ["false"]


def test_a_value_may_look_like_a_flag():
    assert parse("--bundle", "--force").string("bundle") == "--force"
    assert parse("--bundle", "--", "id").string("bundle") == "--"


def test_a_value_may_hold_equals_signs_and_be_empty():
    assert parse("-e=A=B=C").strings("env") == ["A=B=C"]
    assert parse("--bundle=").string("bundle") == ""


def test_repeated_flags_gather_their_values_and_others_keep_the_last():
    parsed = parse("-e", "A=1", "-e", "B=2", "-g", "1", "-g", "-2", "-b", "x", "-b", "y")
    assert parsed.strings("env") == ["A=1", "B=2"]
    assert parsed.integers("gids") == [1, -2]
    assert parsed.string("bundle") == "y"


def test_flags_end_at_the_first_argument():
    assert parse("id", "-f", "--", "x").rest == ["id", "-f", "--", "x"]


def test_flags_end_at_two_dashes():
    assert parse("-f", "--", "-b").rest == ["-b"]


def test_one_dash_is_an_argument():
    assert parse("-", "-f").rest == ["-", "-f"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--foo"], "flag provided but not defined: -foo"),
        (["-fb"], "flag provided but not defined: -fb"),
        (["--foo=bar"], "flag provided but not defined: -foo"),
        (["---force"], "bad flag syntax: ---force"),
        (["--=x"], "bad flag syntax: --=x"),
        (["-b"], "flag needs an argument: -b"),
        (["--force=yes"], 'invalid boolean value "yes" for -force: parse error'),
        (["-f="], 'invalid boolean value "" for -f: parse error'),
        (["--preserve-fds=x"], 'invalid value "x" for flag -preserve-fds: parse error'),
        (["--preserve-fds", ""], 'invalid value "" for flag -preserve-fds: parse error'),
        (["--preserve-fds", "9" * 20], f'invalid value "{"9" * 20}" for flag -preserve-fds: value out of range'),
        (["-g", "5,6"], 'invalid value "5,6" for flag -g: strconv.ParseInt: parsing "5,6": invalid syntax'),
        (["-g", "0x1"], 'invalid value "0x1" for flag -g: strconv.ParseInt: parsing "0x1": invalid syntax'),
        (["-b", "x", "--bundle", "y"], "Cannot use two forms of the same flag: b bundle"),
        (["-h", "-help"], "Cannot use two forms of the same flag: h help"),
    ],
)
def test_complains_in_the_words_of_go(arguments, message):
    with pytest.raises(UsageError) as caught:
        parse(*arguments)
    assert str(caught.value) == message


def test_help_is_always_a_flag():
    assert parse("-h").boolean("help")
    assert not parse().boolean("help")


@pytest.mark.parametrize(
    ("arguments", "rest"),
    [
        (["id", "-f"], ["id"]),
        (["id", "-b", "x", "-f"], ["id"]),
        (["id", "--bundle=x", "-f", "KILL"], ["id", "KILL"]),
        (["-f", "id", "KILL"], ["id", "KILL"]),
        (["id", "-f", "--", "-b"], ["id", "-b"]),
        (["id", "-1"], ["id", "-1"]),
        (["id", "--unknown"], ["id", "--unknown"]),
    ],
)
def test_flags_may_follow_the_arguments_where_a_verb_allows_it(arguments, rest):
    parsed = parse(*arguments, anywhere=True)
    assert parsed.rest == rest
    assert parsed.boolean("force") is ("-f" in arguments)


def test_a_value_is_moved_together_with_its_flag():
    parsed = parse("id", "-b", "x", "more", anywhere=True)
    assert (parsed.string("bundle"), parsed.rest) == ("x", ["id", "more"])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("10", 10),
        ("-3", -3),
        ("+3", 3),
        ("010", 8),
        ("0o10", 8),
        ("0x1F", 31),
        ("-0b11", -3),
        ("1_000", 1000),
        ("0x_ff", 255),
        ("0", 0),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_integer_flags_take_the_bases_of_go(text, number):
    assert parser.parse_int_any_base(text) == number


@pytest.mark.parametrize(
    "text", ["", "-", "0x", "08", "1__0", "_1", "1_", " 1", "1 ", "１", "1.0", "--1", "+-1", "0b2"]
)
def test_integer_flags_take_nothing_else(text):
    with pytest.raises(ValueError, match="invalid syntax"):
        parser.parse_int_any_base(text)


@pytest.mark.parametrize("text", ["1_000", "0x1", " 1", "", "+", "１"])
def test_plain_integers_are_decimal(text):
    with pytest.raises(ValueError, match="invalid syntax"):
        parser.parse_int(text)


@pytest.mark.parametrize("text", ["9223372036854775808", "-9223372036854775809", "9" * 5000])
def test_integers_have_64_bits(text):
    with pytest.raises(ValueError, match="value out of range"):
        parser.parse_int(text)
