"""Run the core's algorithms under a scheduler that tries every order of their steps.

    make interleavings                          # builds such a core, runs this
    python tests/interleavings/run.py --short   # a minute or two, for every change
    python tests/interleavings/run.py --json FILE ONE_AND_ONE LOCK
    python tests/interleavings/run.py --replay '3:1 17:2' --preemptions 2 ONE_AND_ONE

Each program (programs.py) is a list of operations for each of its threads, which stand for
processes. All schedules with 0, 1, 2, ... preemptions are run, as far as the time for a program
goes, then others at random; where it says so, also with a thread killed, at every point. After each
the ledger of messages, the memory, the locks and the doorbell must be right; see programs.pxi for
what is looked at. Then the core is broken on purpose, one step at a time, and that must be found.

The status is 0 if nothing was wrong but what was broken on purpose, and that was found each time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from mpipc import _interleavings as scheduled
from programs import MUTATIONS, PROGRAMS


def run_program(name: str, seconds: float, most: int, seed: int) -> dict[str, Any]:
    """All schedules that there is time for, by number of preemptions; then some at random."""
    program = PROGRAMS[name]
    kills = program.get("kills", 0)
    began = time.monotonic()
    result: dict[str, Any] = {"schedules": 0, "steps": 0, "exhaustive": None, "violations": []}

    def add(part: dict[str, Any], how: str) -> None:
        result["schedules"] += part["schedules"]
        result["steps"] += part["steps"]
        result["violations"] += [(what, f"{how} {trace}") for what, trace in part["violations"]]

    for preemptions in range(most + 1):
        left = 0.75 * seconds - (time.monotonic() - began)
        if left <= 0 or result["violations"]:
            break
        part = scheduled.explore(program, preemptions, kills, seconds=left)
        add(part, f"--preemptions {preemptions} --replay")
        if part["complete"]:
            result["exhaustive"] = preemptions
    left = seconds - (time.monotonic() - began)
    if left > 0 and not result["violations"]:
        add(scheduled.sample(program, seed, 1 << 40, kills, seconds=left), "--replay")
    result["seconds"] = round(time.monotonic() - began, 1)
    return result


def find_mutation(number: int, seconds: float) -> dict[str, Any]:
    """Break the core in one way; what was found, and after how many schedules."""
    name = MUTATIONS[number - 1][1]
    program = PROGRAMS[name]
    schedules = 0
    for preemptions in range(4):
        part = scheduled.explore(program, preemptions, program.get("kills", 0), number, seconds)
        schedules += part["schedules"]
        if part["violations"]:
            return {"schedules": schedules, "found": part["violations"][0][0]}
    return {"schedules": schedules, "found": None}


def replay(name: str, choices: str, preemptions: int) -> int:
    program = PROGRAMS[name]
    kills = program.get("kills", 0)
    if choices.startswith("seed "):
        wrong = scheduled.replay_seed(program, int(choices[5:]), kills)
    else:
        wrong = scheduled.replay(program, preemptions, choices, kills)
    print(wrong or "nothing is wrong")
    return wrong is not None


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("programs", nargs="*", metavar="PROGRAM", help="all, if none is named")
    parser.add_argument("--short", action="store_true", help="a minute or two in all")
    parser.add_argument("--seconds", type=float, help="for each program; 10, or 0.8 with --short")
    parser.add_argument("--preemptions", type=int, default=6, metavar="N", help="at most")
    parser.add_argument("--seed", type=int, default=0, help="of the schedules at random")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    parser.add_argument("--replay", metavar="TRACE", help="run the one schedule that was named")
    options = parser.parse_args()
    for name in options.programs:
        if name not in PROGRAMS:
            parser.error(f"no program {name!r}; there are {', '.join(PROGRAMS)}")
    if options.replay is not None:
        if len(options.programs) != 1:
            parser.error("--replay needs the one program")
        return replay(options.programs[0], options.replay, options.preemptions)
    seconds = options.seconds or (0.8 if options.short else 10.0)
    figures: dict[str, Any] = {"programs": {}, "broken": {}}
    wrong = 0
    print(f"{'program':24}{'schedules':>12}{'steps':>14}  exhaustive to  violations")
    for name in options.programs or PROGRAMS:
        result = run_program(name, seconds, options.preemptions, options.seed)
        figures["programs"][name] = result
        exhaustive = "-" if result["exhaustive"] is None else result["exhaustive"]
        print(
            f"{name:24}{result['schedules']:>12,}{result['steps']:>14,}  "
            f"{exhaustive!s:>13}  {len(result['violations']):>10}",
            flush=True,
        )
        for what, trace in result["violations"]:
            print(f"    {what}: {trace!r} {name}", flush=True)
        wrong += bool(result["violations"])
    if not options.programs:
        print(f"\n{'broken on purpose':52}{'schedules':>10}  found")
        for number, (what, _) in enumerate(MUTATIONS, 1):
            result = find_mutation(number, 20.0)
            figures["broken"][what] = result
            print(f"{what:52}{result['schedules']:>10,}  {result['found'] or 'NOTHING'}")
            wrong += result["found"] is None
    total = sum(result["schedules"] for result in figures["programs"].values())
    print(f"\n{total:,} schedules of {len(figures['programs'])} programs, {wrong} wrong")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
