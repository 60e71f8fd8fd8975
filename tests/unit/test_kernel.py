"""The thin calls: what they do, and how they fail."""

from __future__ import annotations

import errno
import os
import select
import signal
import subprocess
import sys
import threading

import pytest

from mpipc import _kernel

SIGNAL = signal.SIGRTMAX - 5


@pytest.fixture
def inotify():
    fd = _kernel.inotify_init1(_kernel.IN_CLOEXEC | _kernel.IN_NONBLOCK)
    yield fd
    os.close(fd)


def is_readable(fd):
    return bool(select.select([fd], [], [], 0)[0])


def test_a_watch_reports_a_rename_until_it_ends(inotify, tmp_path):
    watch = _kernel.inotify_add_watch(inotify, tmp_path, _kernel.IN_MOVED_TO)
    (tmp_path / "new").touch()
    assert not is_readable(inotify)
    (tmp_path / "new").rename(tmp_path / "message")
    assert b"message" in os.read(inotify, 4096)
    _kernel.inotify_rm_watch(inotify, watch)
    assert is_readable(inotify)  # the end itself is reported
    os.read(inotify, 4096)
    (tmp_path / "message").rename(tmp_path / "other")
    assert not is_readable(inotify)


def test_failures_name_the_call_and_the_file(inotify, tmp_path):
    with pytest.raises(FileNotFoundError, match="inotify_add_watch") as caught:
        _kernel.inotify_add_watch(inotify, str(tmp_path / "none"), _kernel.IN_MODIFY)
    assert caught.value.filename == str(tmp_path / "none")
    with pytest.raises(OSError, match="inotify_rm_watch") as caught:
        _kernel.inotify_rm_watch(inotify, 7)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(OSError, match="inotify_init1"):
        _kernel.inotify_init1(-1)
    with pytest.raises(ProcessLookupError, match="rt_tgsigqueueinfo"):
        _kernel.rt_tgsigqueueinfo(os.getpid(), 1, SIGNAL, 0)


def test_a_queued_signal_carries_a_value_to_one_thread():
    ready, got = threading.Event(), []

    def wait():
        signal.pthread_sigmask(signal.SIG_BLOCK, (SIGNAL,))
        ready.set()
        got.append(signal.sigtimedwait((SIGNAL,), 30))

    thread = threading.Thread(target=wait)
    thread.start()
    ready.wait()
    _kernel.rt_tgsigqueueinfo(os.getpid(), thread.native_id, SIGNAL, 12345)
    thread.join()
    # The field shares its place with the value.
    assert (got[0].si_signo, got[0].si_pid, got[0].si_status) == (SIGNAL, os.getpid(), 12345)


def test_an_ignored_signal_does_not_kill():
    program = f"""
import os, signal, threading
from mpipc import _kernel
thread = threading.Thread(target=_kernel.ignore_by_default, args=({SIGNAL},))
thread.start()
thread.join()
_kernel.rt_tgsigqueueinfo(os.getpid(), threading.get_native_id(), {SIGNAL}, 1)
signal.signal({SIGNAL - 1}, lambda *_: print("handled"))
_kernel.ignore_by_default({SIGNAL - 1})
os.kill(os.getpid(), {SIGNAL - 1})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "handled\n", "")


def test_compare_exchange():
    words = memoryview(bytearray(16)).cast("Q")
    assert _kernel.compare_exchange(words, 1, 0, 1 << 63)
    assert not _kernel.compare_exchange(words, 1, 0, 5)
    assert list(words) == [0, 1 << 63]
    for index in (-1, 2):
        with pytest.raises(IndexError):
            _kernel.compare_exchange(words, index, 0, 1)
    with pytest.raises(BufferError):
        _kernel.compare_exchange(bytes(8), 0, 0, 1)
