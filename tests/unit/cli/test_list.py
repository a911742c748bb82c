from ctr_supervisor.cli.list import table


def container(**changes):
    return {
        "id": "web",
        "pid": 7,
        "status": "running",
        "bundle": "/b",
        "created": "2026-01-02T03:04:05Z",
        "owner": "root",
        **changes,
    }


def test_an_empty_list_is_a_heading():
    assert table([]) == "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"


def test_columns_are_as_wide_as_their_longest_cell_and_three_spaces():
    lines = table([container(), container(id="a-longer-name", status="stopped", pid=0)]).splitlines()
    assert lines == [
        "ID              PID         STATUS      BUNDLE      CREATED                OWNER",
        "web             7           running     /b          2026-01-02T03:04:05Z   root",
        "a-longer-name   0           stopped     /b          2026-01-02T03:04:05Z   root",
    ]


def test_a_cell_of_nine_fits_the_least_width_and_one_of_ten_does_not():
    assert table([container(id="123456789")]).startswith("ID          PID")
    assert table([container(id="1234567890")]).startswith("ID           PID")
