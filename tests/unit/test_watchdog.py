"""The watchdog itself: each case in an interpreter of its own, which it may end."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from mpipc.testing import WatchdogExpired, descendants, watchdog
from workers import A_WHILE, SOON, environment


def python(code):
    """Run a program; return its exit code and what it wrote to stderr."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code)],
        stderr=subprocess.PIPE,
        text=True,
        timeout=SOON,
        env=environment(),
    )
    return done.returncode, done.stderr


def test_leaves_what_is_quick_alone():
    before = set(threading.enumerate())
    for _ in range(3):
        with watchdog(SOON):
            during = set(threading.enumerate())
    assert len(during - before) == 1
    assert set(threading.enumerate()) == before


def test_lets_errors_through():
    with pytest.raises(KeyError), watchdog(SOON):
        raise KeyError


def test_interrupts_and_says_where():
    code, stderr = python(
        """
        import threading
        from mpipc.testing import watchdog
        def stuck_here():
            threading.Event().wait()
        with watchdog(0.2):
            stuck_here()
        """
    )
    assert code == 1
    assert "WatchdogExpired: not done after 0.2 s" in stderr
    assert "in stuck_here" in stderr and "thread MainThread" in stderr


def test_shows_and_ends_descendants():
    code, stderr = python(
        """
        import subprocess, sys
        from mpipc.testing import watchdog
        sleeper = "import time\\ndef stuck_below(): time.sleep(600)\\nstuck_below()"
        with watchdog(1):
            subprocess.run([sys.executable, "-X", "faulthandler", "-c", sleeper])
        """
    )
    assert code == 1
    assert "WatchdogExpired" in stderr and "state S" in stderr and "waits in" in stderr
    # The child's own stack, in its own words, and then its end, or this would not have ended.
    assert "stuck_below" in stderr and "Fatal Python error: Aborted" in stderr


def test_ends_a_process_that_no_signal_gets_out():
    code, stderr = python(
        """
        import signal, time
        from mpipc.testing import watchdog
        def deaf():
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
            time.sleep(600)
        with watchdog(0.2, grace=2):
            deaf()
        """
    )
    assert code == 1
    assert "Timeout" in stderr and "in deaf" in stderr


def test_as_a_decorator():
    @watchdog(SOON)
    def quick():
        return 5

    assert quick() == 5
    assert issubclass(WatchdogExpired, AssertionError)


def test_descendants():
    reader, writer = os.pipe()
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=reader) as child:
        os.close(reader)
        deadline = time.monotonic() + SOON
        while len(found := [p for p in descendants() if child.pid in (p.pid, p.parent)]) < 2:
            assert time.monotonic() < deadline
            time.sleep(A_WHILE / 10)
        os.close(writer)
    parent, below = found
    assert (parent.pid, parent.parent, below.parent) == (child.pid, os.getpid(), child.pid)
    assert child.pid not in {process.pid for process in descendants()}
