from __future__ import annotations

from ctr_common import step_list


def test_steps_are_numbered_with_their_place_behind_them():
    assert step_list.text([{"step": "mount", "detail": "proc on /proc", "json_path": ".mounts[0]"}]) == (
        "  1 mount: proc on /proc  [.mounts[0]]\n"
    )


def test_a_process_gets_a_heading_whenever_it_takes_over():
    steps = [{"process": process, "step": "work", "detail": ""} for process in ("a", "a", "b", "a")]
    assert step_list.text(steps) == "a\n  1 work\n  2 work\nb\n  3 work\na\n  4 work\n"
