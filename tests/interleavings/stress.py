"""The core on real threads that no lock of the interpreter keeps apart, for ThreadSanitizer.

    make sanitize SANITIZER=thread      # builds such a core and runs this

The programs (STRESS in programs.py) are gone through many times. Where threads share a handle they
are threads of one process, else they do what processes do that share memory. The ledger of
messages, memory, and what locks guard are looked at as under the scheduler. Races are for the
sanitizer to find, which then ends with the status 66; one that is made on purpose must be found.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from mpipc import _stress
from programs import STRESS, do, program

ROUNDS = 500  # on one channel
RACE_FOUND = 66


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help="all, if none is named")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each program")
    parser.add_argument("--race", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.race:
        _stress.run(program([do("race")], [do("race")]), 1000)
        return 0
    failed = 0
    for name in options.programs or STRESS:
        if name not in STRESS:
            parser.error(f"no program {name!r}; there are {', '.join(STRESS)}")
        began, rounds, wrong = time.monotonic(), 0, None
        while time.monotonic() - began < options.seconds and not wrong:
            wrong = _stress.run(STRESS[name], ROUNDS)
            rounds += ROUNDS
        print(f"{name:20}{rounds:>10,} rounds  {wrong or 'ok'}", flush=True)
        failed += wrong is not None
    if not options.programs:
        made = subprocess.run([sys.executable, __file__, "--race"], capture_output=True, text=True)
        found = made.returncode == RACE_FOUND and "data race" in made.stderr
        print("a race made on purpose:", "found" if found else "NOT FOUND")
        failed += not found
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
