"""The device program is run by a small interpreter of the instructions that it may use."""

from __future__ import annotations

import itertools

import pytest

from ctr_supervisor.cgroups import devices_ebpf
from ctr_supervisor.cgroups.device_rules import ALL, ANY, MKNOD, READ, WRITE, Rule, from_config

BLOCK, CHAR = 1, 2


def run(code: bytes, kind: int, access: int, major: int, minor: int) -> bool:
    registers = [0] * 11
    context = {0: access << 16 | kind, 4: major, 8: minor}
    instructions = list(devices_ebpf.INSN.iter_unpack(code))
    position = 0
    while True:
        operation, both, offset, value = instructions[position]
        target, source = both & 15, both >> 4
        position += 1
        if operation == devices_ebpf.LOAD_WORD:
            assert source == devices_ebpf.CONTEXT
            registers[target] = context[offset]
        elif operation == devices_ebpf.AND32:
            registers[target] &= value
        elif operation == devices_ebpf.SHIFT_RIGHT32:
            registers[target] >>= value
        elif operation == devices_ebpf.MOVE32:
            registers[target] = value
        elif operation == devices_ebpf.MOVE32_REGISTER:
            registers[target] = registers[source]
        elif operation == devices_ebpf.JUMP_EQUAL:
            position += offset if registers[target] == value else 0
        elif operation == devices_ebpf.JUMP_NOT_EQUAL:
            position += offset if registers[target] != value else 0
        else:
            assert operation == devices_ebpf.EXIT
            return registers[0] == 1


def decided_by_the_last_rule(rules: list[Rule], kind: int, access: int, major: int, minor: int) -> bool:
    """The same in plain words: each single access is decided by the last rule that names it."""
    for bit in (MKNOD, READ, WRITE):
        if access & bit:
            naming = [
                rule
                for rule in rules
                if rule.access & bit
                and rule.kind in ("a", {BLOCK: "b", CHAR: "c"}[kind])
                and rule.major in (ANY, major)
                and rule.minor in (ANY, minor)
            ]
            if not naming or not naming[-1].allow:
                return False
    return True


@pytest.mark.parametrize(
    "rules",
    [
        [],
        [Rule(True)],
        [Rule(True, "c", 1, 3), Rule(False)],
        [Rule(True), Rule(False, "b", 8, 0, WRITE)],
        [Rule(True, "c", 1, ANY), Rule(False, "c", 1, 3, READ)],
        [Rule(True, "c", 1, 3, READ), Rule(True, "c", ANY, 3, WRITE), Rule(True, "a", ANY, ANY, MKNOD)],
        [Rule(True, "a", 1, 3), Rule(False, "a", ANY, ANY, WRITE), Rule(True, "b", 1, ANY, WRITE)],
        [Rule(True, "c", 0xFFFFFFFF, 3), Rule(True, "b", 1, 0xFFFFFFFF)],
        from_config(None),
        from_config([{"allow": True}]),
        from_config([{"allow": True, "type": "b", "access": "rw"}, {"allow": False, "type": "b", "major": 8}]),
    ],
    ids=str,
)
def test_program_says_what_the_last_matching_rule_says(rules):
    code = devices_ebpf.program(rules)
    for kind, access, major, minor in itertools.product(
        (BLOCK, CHAR), range(1, ALL + 1), (0, 1, 5, 8, 136), (0, 2, 3, 9)
    ):
        expected = decided_by_the_last_rule(rules, kind, access, major, minor)
        assert run(code, kind, access, major, minor) is expected, (kind, access, major, minor)


def test_nothing_follows_a_rule_for_everything_because_the_verifier_refuses_dead_code():
    closed = devices_ebpf.program([Rule(True, "c", 1, 3), Rule(False)])
    assert closed == devices_ebpf.program([Rule(False)])


def test_last_instruction_ends_the_program():
    code = devices_ebpf.program(from_config(None))
    assert devices_ebpf.INSN.unpack(code[-8:])[0] == devices_ebpf.EXIT
