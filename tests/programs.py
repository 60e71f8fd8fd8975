"""Programs in files of their own, run as users run them."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import workers
from workers import SOON


def program(path, code, *args, flags=()):
    """Run a script, as users do; return its last line as JSON."""
    path.write_text(textwrap.dedent(code))
    done = subprocess.run(
        [sys.executable, *flags, str(path), *args],
        capture_output=True,
        text=True,
        timeout=SOON,
        env=workers.environment(),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout.splitlines()[-1])
