"""The command line, run as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import mpipc
from mpipc.cli.compare import first_difference


def run(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    command = ["-c", code] if code else ["-m", "mpipc"]
    return subprocess.run(
        [sys.executable, *command, *arguments], capture_output=True, text=True, timeout=100
    )


def test_version_and_help():
    assert run("--version").stdout.split() == ["mpipc", mpipc.__version__]
    helped = run("--help")
    assert helped.returncode == 0 and "demo" in helped.stdout


@pytest.mark.watchdog(110)
def test_demo_runs_a_program_on_both_sides_and_writes_the_figures(tmp_path):
    figures = tmp_path / "figures.json"
    done = run("demo", "pool_map", "--repeat", "1", "--json", str(figures))
    assert done.returncode == 0, done.stderr
    assert "pool_map" in done.stdout and "same" in done.stdout
    report = json.loads(figures.read_text())
    (program,) = report["programs"]
    assert program["name"] == "pool_map" and program["failure"] is None
    assert len(program["stock"]["seconds"]) == len(program["contender"]["seconds"]) == 1
    assert program["ratio"] > 0


DIFFERS = """
import sys
from mpipc.cli import demo, main
finish = demo.first_difference
demo.first_difference = lambda expected, actual: finish(expected, {**actual, 7: -1})
sys.exit(main(["demo", "pool_map", "--repeat", "1"]))
"""


@pytest.mark.watchdog(110)
def test_demo_fails_when_a_result_differs():
    done = run(code=DIFFERS)
    assert done.returncode == 1
    assert "[7] is -1" in done.stdout + done.stderr


def test_demo_without_rich_says_what_to_install():
    done = run(code="import sys; sys.modules['rich'] = None\n"
               "from mpipc.cli import main; sys.exit(main(['demo']))")  # fmt: skip
    assert done.returncode == 2
    assert "pip install 'mpipc[cli]'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["demo", "no_such_program"], ["demo", "--repeat", "0"], ["no_such_command"]]
)
def test_bad_arguments_are_named(arguments):
    done = run(*arguments)
    assert done.returncode == 2
    assert arguments[-1] in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("expected", "actual", "difference"),
    [
        ([1, 2], [1, 2], None),
        ({"a": [1, (2, 3)]}, {"a": [1, (2, 3)]}, None),
        ([1, 2], [1, 3], "result[1] is 3, expected 2"),
        ([1, 2], [1], "result has 1 items, expected 2"),
        ({"a": 1}, {}, "result['a'] is missing, expected 1"),
        ({}, {"a": 1}, "result['a'] is 1, expected no such item"),
        (1, 1.0, "result is 1.0, expected 1"),
        ({"a": [0, 5]}, {"a": [0, 6]}, "result['a'][1] is 6, expected 5"),
    ],
)
def test_the_first_difference_is_found(expected, actual, difference):
    assert first_difference(expected, actual) == difference
