"""The harness for CPython's tests, on a small suite of ours in the place of CPython's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import workers

pytestmark = [
    pytest.mark.beyond_stock("about the harness"),
    pytest.mark.watchdog(120),
]

COMMAND = Path(__file__).parents[2] / "compat_tests"

SUITE = """
    import multiprocessing, os, signal, sys, threading, time, unittest

    def child():
        multiprocessing.Event()

    class Tests(unittest.TestCase):
        def test_passes(self):
            multiprocessing.Queue().put(1)
            process = multiprocessing.Process(target=child)
            process.start()
            process.join()
            self.assertEqual(process.exitcode, 0)

        def test_makes_nothing(self):
            pass

        def test_fails(self):
            self.assertEqual(1, 2)

        def test_errs(self):
            raise OSError("on purpose")

        def test_skips(self):
            self.skipTest("no reason")

        def test_dies(self):
            os.kill(os.getpid(), signal.SIGKILL)

        def test_hangs_with_its_child(self):
            pid = os.fork()
            print("child", os.getpid(), file=open(os.environ["PIDS"], "a"))
            time.sleep(100)

        def test_leaves_a_process(self):
            if os.fork() == 0:
                os.setsid()
                print("left", os.getpid(), file=open(os.environ["PIDS"], "a"))
                time.sleep(100)

        def test_hangs_at_exit(self):
            threading.Thread(target=time.sleep, args=(100,)).start()

    class Flaky(unittest.TestCase):
        def test_skips_on_ours(self):
            if multiprocessing.get_context().__class__.__module__.startswith("mpipc"):
                self.skipTest("ours")

    def install_tests_in_module_dict(names, method):
        multiprocessing.set_start_method(method)
        for cls in (Tests, Flaky):
            cls.__module__ = names["__name__"]
            names[cls.__name__] = cls
"""


@pytest.fixture
def run(tmp_path):
    package = tmp_path / "test"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "support.py").write_text("environment_altered = False\n")
    (package / "_test_multiprocessing.py").write_text(textwrap.dedent(SUITE))
    environment = workers.environment()
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
    environment["PIDS"] = str(tmp_path / "pids")

    def run(*arguments):
        return subprocess.run(
            [sys.executable, str(COMMAND), "--limit", "5", *arguments],
            capture_output=True,
            text=True,
            timeout=100,
            env=environment,
        )

    return run


def outcomes(folder, context="mpipc-shm", method="fork"):
    (file,) = folder.glob(f"*-{context}-{method}.json")
    tests = json.loads(file.read_text())["tests"]
    return {name.rpartition(".")[2]: result for name, result in tests.items()}


def test_every_outcome_is_told(run, tmp_path):
    done = run("--save", str(tmp_path / "results"))
    assert done.returncode == 1, done.stderr
    found = outcomes(tmp_path / "results")
    assert {name: result["outcome"] for name, result in found.items()} == {
        "test_passes": "passed",
        "test_makes_nothing": "passed",
        "test_leaves_a_process": "passed",
        "test_skips": "skipped",
        "test_skips_on_ours": "skipped",
        "test_fails": "failed",
        "test_errs": "errored",
        "test_dies": "errored",
        "test_hangs_with_its_child": "timed out",
        "test_hangs_at_exit": "timed out",
    }
    assert "1 != 2" in found["test_fails"]["reason"]
    assert "on purpose" in found["test_errs"]["reason"]
    assert "SIGKILL" in found["test_dies"]["reason"]
    assert found["test_leaves_a_process"]["left"] == 1
    assert {"Process", "Queue"} <= set(found["test_passes"]["touched"])
    assert "touched" not in found["test_makes_nothing"]
    line = "ran 10 tests: 3 passed, 2 skipped, 1 failed, 2 errored, 2 timed out"
    assert line in done.stdout
    assert "concurrent_futures: this Python lacks test.test_concurrent_futures" in done.stdout
    for line in (tmp_path / "pids").read_text().splitlines():
        assert not os.path.exists(f"/proc/{line.split()[1]}"), line


def test_less_than_stock_is_worse(run):
    done = run("--against-stock", "--match", "*.Flaky.*", "--match", "*.test_fails")
    assert done.returncode == 1
    assert "worse than on stock: 1" in done.stdout
    assert "test_skips_on_ours: skipped, passed" in done.stdout


def test_the_same_as_stock_is_well(run):
    done = run("--against-stock", "--match", "*.test_passes", "--match", "*.test_fails")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "worse than on stock: 0" in done.stdout
    assert "ran 2 tests: 1 passed" in done.stdout
    # What has passed need not run on stock.
    assert "ran 1 tests: 0 passed" in done.stdout


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_spawned_children(run, method):
    done = run("--start-method", method, "--match", "*.test_passes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_a_run_that_reached_nothing_of_ours_is_bad(run):
    done = run("--match", "*.test_makes_nothing")
    assert done.returncode == 1
    assert "was not used at all" in done.stdout


def test_no_tests_are_bad(run):
    done = run("--match", "no such test")
    assert done.returncode == 2
    assert "no tests to run" in done.stdout


def test_repetitions_count_failures(run):
    done = run("--repeat", "3", "--match", "*.test_passes", "--match", "*.test_fails")
    assert done.returncode == 1
    assert "failed 3 of 3 times: multiprocessing.Tests.test_fails" in done.stdout


def test_the_table(run, tmp_path):
    results = tmp_path / "results"
    run("--against-stock", "--save", str(results), "--match", "*.Flaky.*", "--match", "*.test_p*")
    page = tmp_path / "page.md"
    done = subprocess.run(
        [sys.executable, str(COMMAND / "table.py"), str(results), "--output", str(page)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "| multiprocessing |" in text and "| 1 / 2 |" in text
    assert "test_skips_on_ours`: skipped, with stock passed" in text
