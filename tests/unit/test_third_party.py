"""A mechanism from another package, found by its entry point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.beyond_stock("it has no mechanisms"),
    pytest.mark.leaks_allowed("everything happens in other processes"),
]

MECHANISM = """
from mpipc import MechanismSpec
from mpipc.mechanisms.pipe import connections, limits, memory, tokens

SPEC = MechanismSpec(
    "borrowed",
    __name__,
    messages="pipes of another",
    locks="tokens of another",
    memory="memory of another",
    pollable="a pipe",
    when_killed="as in the other",
)
"""

PROGRAM = """
import multiprocessing

import mpipc


def work(q, lock):
    with lock:
        q.put("from the child")


if __name__ == "__main__":
    ctx = multiprocessing.get_context("mpipc-borrowed-spawn")
    q, lock = ctx.Queue(), ctx.Lock()
    child = ctx.Process(target=work, args=(q, lock))
    child.start()
    print(q.get(), ctx, "mpipc-borrowed" in mpipc.context_names())
    child.join()
"""


@pytest.fixture
def run(tmp_path: Path):
    """Run Python where a distribution with the mechanism is installed, and one that is broken."""
    (tmp_path / "third_party.py").write_text(MECHANISM)
    (tmp_path / "program.py").write_text(PROGRAM)
    for name, target in (("third", "third_party:SPEC"), ("broken", "third_party:NOTHING")):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[mpipc.mechanisms]\n{name} = {target}\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": path},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=50,
        )

    return run


def test_a_program_uses_it(run):
    done = run("program.py")
    assert done.stdout == "from the child <SpawnContext mpipc-borrowed-spawn> True\n", done.stderr


def test_it_is_listed_beside_the_others(run):
    done = run("-m", "mpipc", "mechanisms", "--json")
    found = {row["name"]: row for row in json.loads(done.stdout)}
    assert found["borrowed"]["works"], done.stderr
    assert found["borrowed"]["messages"] == "pipes of another"
    assert found["shm"]["works"]


def test_one_that_cannot_be_loaded_is_told_of_and_left_out(run):
    done = run("-m", "mpipc", "mechanisms", "--json")
    assert "mechanism 'broken' of third_party:NOTHING cannot be used" in done.stderr
    assert done.returncode == 0


def test_the_kit_judges_it(run):
    done = run("-m", "mpipc.testing", "mpipc-borrowed", "--match", "check_*queue_is_full")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok      check_bounded_queue_is_full" in done.stdout
    assert "0 failed" in done.stdout


def test_the_kit_finds_what_is_wrong(run, tmp_path):
    broken = MECHANISM.replace("import connections", "import connections as right")
    broken += """
def connections(duplex):
    reader, writer = right(duplex)
    writer.send_bytes(b"nobody sent this")
    return reader, writer
"""
    (tmp_path / "third_party.py").write_text(broken)
    done = run("-m", "mpipc.testing", "mpipc-borrowed", "--match", "check_fileno*")
    assert done.returncode == 1
    assert "FAILED  check_fileno_can_be_polled" in done.stdout
    assert "readable without a message: expected []" in done.stdout


def test_an_unknown_name_lists_the_known(run):
    done = run("-c", "import mpipc; mpipc.get_context('nothing')")
    assert "unknown mechanism 'nothing'; there are shm, pipe" in done.stderr
    assert "borrowed" in done.stderr
