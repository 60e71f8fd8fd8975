"""A little of `make fuzz`, and whether it would tell what it is there to tell."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faults"))

import fuzz


@pytest.mark.watchdog(120)
def test_damage_gives_answers_or_exceptions():
    figures = fuzz.Figures()
    fuzz.fuzz(2026, 25, figures, time.monotonic() + 20)
    assert figures.examples
    assert not figures.failures


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (lambda *_: os.kill(os.getpid(), signal.SIGSEGV), "crashed, status -11"),
        (lambda *_: os.kill(os.getpid(), signal.SIGSTOP), "hung"),
        (lambda *_: bytearray(b"x") * (fuzz.MOST_MEMORY + (64 << 20)), r"took \d+ MiB"),
        (lambda *_: [][1], "IndexError"),
    ],
)
def test_the_fuzzer_tells(monkeypatch, use, told):
    kind = fuzz.KINDS["Event"]
    wrong = fuzz.Kind(kind.make, kind.memory, kind.fields, use)
    monkeypatch.setitem(fuzz.KINDS, "Event", wrong)
    monkeypatch.setattr(fuzz, "HANGS_AFTER", 6.0)
    _, error = fuzz.play("Event", [3], 0, False, [])
    assert re.search(told, error)


@pytest.mark.parametrize("name", fuzz.KINDS)
def test_what_is_not_damaged_answers(name):
    came, error = fuzz.play(name, [3, 20_000], 0, False, [])
    assert error is None
    assert came["answers"] and not {"SegmentCorrupt", "MemoryError", "OSError"} & came.keys()
