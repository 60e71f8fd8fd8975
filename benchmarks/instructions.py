"""Count the instructions of the hot paths, and fail if they have grown: `make instructions`.

Unlike times, the counts of valgrind's callgrind do not depend on what else the machine does. There
is a record for each minor version of Python; `make instructions ARGS=--record` writes it. It has
the instructions of all code and those of our extensions alone. Where the interpreter is not the one
that was recorded, only the latter are compared, and roughly: its compiler's options are ours.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import mpipc._core

HERE = Path(__file__).resolve().parent
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
RECORD = HERE / "results" / f"instructions-{VERSION}-{platform.machine()}.json"

# What one process does by itself; the context is `ctx`. The first is the loop itself.
LOOP = "loop"
PATHS = {
    LOOP: ("pass", "pass"),
    "Queue, put and get an int": ("q = ctx.Queue()", "q.put(7); q.get()"),
    "Queue, put and get a small tuple": (
        "q = ctx.Queue(); t = (1, 'two', 3.0)",
        "q.put(t); q.get()",
    ),
    "Queue, put and get 100 bytes": ("q = ctx.Queue(); b = bytes(100)", "q.put(b); q.get()"),
    "Pipe, send and receive an int": ("r, w = ctx.Pipe(False)", "w.send(7); r.recv()"),
    "Lock, acquire and release": ("lock = ctx.Lock()", "lock.acquire(); lock.release()"),
    "with Lock": ("lock = ctx.Lock()", "with lock: pass"),
    "Event, is_set": ("event = ctx.Event()", "event.is_set()"),
    "Value, read": ("v = ctx.Value('q', 0)", "v.value"),
    "Value, write": ("v = ctx.Value('q', 0)", "v.value = 1"),
}
# Of all code, and of our extensions.
PARTS = "all", "ours"
OURS = re.compile(r"/mpipc/_\w+\.[^/]*so$")
Counts = dict[str, dict[str, float]]

WARM, TIMES = 300, 1000

# Per cent by which counts may differ between builds of the same code.
ROUGHLY = 25

# Callgrind writes what it has counted, and begins anew, whenever this is called.
MARK = "getppid"


def walk() -> None:
    """Walk all paths, under callgrind: a mark before and after each loop."""
    ctx = mpipc.get_context("shm")
    for setup, statement in PATHS.values():
        code = f"""
def walk(ctx, mark):
    {setup}
    for _ in range({WARM}):
        {statement}
    mark()
    for _ in range({TIMES}):
        {statement}
    mark()
"""
        names: dict[str, object] = {}
        exec(code, names)
        names["walk"](ctx, os.getppid)  # type: ignore[operator]


def count() -> Counts:
    """Count the instructions of each path, without those of the loop."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "counts"
        subprocess.run(
            [
                "valgrind",
                "--quiet",
                "--tool=callgrind",
                f"--dump-before={MARK}",
                f"--callgrind-out-file={out}",
                sys.executable,
                "-s",
                str(HERE / "instructions.py"),
                "--walk",
            ],
            check=True,
            # Of hashes depends how often dictionaries collide.
            env={**os.environ, "PYTHONHASHSEED": "0"},
        )
        dumps = [
            read(dump.read_text())
            for dump in sorted(out.parent.glob("counts.*"), key=lambda dump: int(dump.suffix[1:]))
        ]
    if len(dumps) != 2 * len(PATHS):
        raise RuntimeError(
            f"callgrind wrote {len(dumps)} dumps, not {2 * len(PATHS)}: "
            f"somebody else than this program calls {MARK}()"
        )
    loops = dict(zip(PATHS, dumps[1::2], strict=True))
    empty = loops.pop(LOOP)
    return {
        path: {part: round((total[part] - empty[part]) / TIMES, 1) for part in PARTS}
        for path, total in loops.items()
    }


def read(dump: str) -> dict[str, int]:
    """Read from a dump how many instructions ran in all, and how many in our extensions."""
    total = ours = 0
    names: dict[str, str] = {}
    within = inclusive = False
    for line in dump.splitlines():
        if match := re.match(r"(c?ob)=(\(\d+\))(?: (.*))?", line):
            what, number, name = match.groups()
            # Named once, later by number alone.
            if name:
                names[number] = name
            if what == "ob":
                within = bool(OURS.search(names[number]))
        elif line.startswith("calls="):
            # The next line is the cost of the called, which have lines of their own.
            inclusive = True
        elif re.match(r"[\d+*-]", line):
            cost = 0 if inclusive else int(line.split()[1])
            inclusive = False
            total += cost
            ours += cost if within else 0
    return {"all": total, "ours": ours}


def surroundings() -> dict[str, str]:
    """What counts depend on, but for our own code."""
    valgrind = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True)
    return {
        "python": platform.python_version(),
        "compiled by": platform.python_compiler(),
        "libc": " ".join(platform.libc_ver()),
        "valgrind": valgrind.stdout.strip(),
    }


def compare(before: Counts, now: Counts, parts: tuple[str, ...], tolerated: float) -> list[str]:
    """Print what there is; return the paths that have grown by more than is tolerated."""
    grown = []
    for path, counts in now.items():
        cells = []
        for part in PARTS:
            cells.append(f"{part} {counts[part]:9,.1f}")
            if path in before and part in parts:
                old = before[path][part]
                growth = counts[part] / old - 1 if old else 0.0
                cells.append(f"{growth:+6.1%}")
                if growth > tolerated:
                    grown.append(f"{path} ({part})")
        print(f"{path:34}", *cells, "" if path in before else "not recorded yet")
    return grown


def main() -> int:
    """Count and compare, or record; 1 if something has grown, 2 if nothing can be said."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="write the record instead")
    parser.add_argument(
        "--tolerate",
        type=float,
        default=3,
        metavar="PERCENT",
        help="so much growth is none (default: %(default)g)",
    )
    parser.add_argument("--walk", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.walk:
        walk()
        return 0
    if shutil.which("valgrind") is None:
        print(
            "missing: valgrind, which counts the instructions (Debian, Ubuntu: apt install "
            "valgrind; Fedora: dnf install valgrind); nothing was checked",
            file=sys.stderr,
        )
        return 2
    if not options.record and not RECORD.exists():
        print(
            f"there is no {RECORD.name} to compare with; nothing was checked. "
            "Write it at a commit that is good: make instructions ARGS=--record",
            file=sys.stderr,
        )
        return 2
    now = count()
    here = surroundings()
    if options.record:
        RECORD.write_text(json.dumps({**here, "instructions": now}, indent=1) + "\n")
        compare(now, now, (), 0)
        print(f"written to {RECORD}")
        return 0
    record = json.loads(RECORD.read_text())
    same = all(record[name] == here[name] for name in ("python", "compiled by"))
    parts: tuple[str, ...] = PARTS
    tolerated = options.tolerate
    if not same:
        parts, tolerated = PARTS[1:], max(ROUGHLY, tolerated)
        print(
            f"recorded with {record['python']}, {record['compiled by']}: only ours is compared, "
            f"and growth up to {tolerated:g} % is none"
        )
    if grown := compare(record["instructions"], now, parts, tolerated / 100):
        print(f"grown by more than {tolerated:g} %: {', '.join(grown)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
