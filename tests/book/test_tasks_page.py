"""The page of tasks holds every task of the registry, and its tables are whole."""

import re

import tasks_page

from klnorm_lib import tasks


def test_every_task_is_a_row_with_its_caveats():
    page = tasks_page.tasks_page()
    rows = re.findall(r"(?m)^\| `(\w+)` \|.*\|$", page)
    assert sorted(rows) == sorted(tasks.names())
    for name in rows:
        assert not tasks.spec(name).caveats or f"- `{name}`: " in page


def test_tables_are_whole():
    lines = [line for line in tasks_page.tasks_page().splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {len(tasks_page._COLUMNS) + 1}
    assert sum("|---" in line for line in lines) == 3
