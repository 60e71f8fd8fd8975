"""FIFOs: their names, and what is left of them."""

from __future__ import annotations

import os
import signal
import stat

import pytest

import mpipc
from mpipc.adapters import leases
from mpipc.mechanisms import fifo


@pytest.fixture(autouse=True)
def private(monkeypatch, tmp_path):
    """The directory in which everything with a name is made."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(leases, "_directory", None)
    return tmp_path


def everything_in(directory):
    return sorted(directory.rglob("*"))


def test_no_name_is_left_while_it_is_used(private):
    context = mpipc.get_context("fifo", start_method="fork")
    reader, writer = context.Pipe()
    lock, block = context.Lock(), fifo.memory(1000)
    with reader, writer, lock:
        assert stat.S_ISFIFO(os.fstat(reader.fileno()).st_mode)
        assert stat.S_IMODE(os.fstat(reader.fileno()).st_mode) == 0o600
        assert stat.S_IMODE(os.fstat(block.arena.fd).st_mode) == 0o600
        assert everything_in(private) == []


def test_what_fails_to_open_leaves_nothing(private, monkeypatch):
    def refuse(path):
        os.mkfifo(path, 0o600)
        raise OSError("refused")

    with pytest.raises(OSError, match="refused"):
        leases.nameless("fifo", refuse)
    assert everything_in(private) == []


@pytest.mark.parametrize("call", ["mkfifo", "open", "set_blocking", "unlink"])
def test_killed_on_the_way_it_is_cleaned_up(private, call):
    child = os.fork()
    if child == 0:
        lease = leases.Lease()
        setattr(os, call, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
        leases.Lease = lambda: lease
        fifo.new_fifo()
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert everything_in(private)
    assert len(list(leases.clean())) == 1
    assert everything_in(private) == []


def test_clean_leaves_alone_what_is_being_opened(private):
    def open_after_cleaning(path):
        os.mkfifo(path, 0o600)
        assert list(leases.clean()) == []
        return stat.S_ISFIFO(os.stat(path).st_mode)

    assert leases.nameless("fifo", open_after_cleaning)


def test_no_directory_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    with pytest.raises(OSError, match="let TMPDIR name"):
        fifo.limits()
