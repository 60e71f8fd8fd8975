"""Remove what killed programs left in the kernel: queues, semaphores, memory with names.

What a living process still uses stays. Programs with mpipc do this by themselves when they start.
"""

from __future__ import annotations

import argparse
import json
import sys

from mpipc.adapters.leases import clean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--json", action="store_true", help="print an object with the lists removed and failed"
    )


def run(arguments: argparse.Namespace) -> int:
    """Clean up; 1 if something could not be removed."""
    failed: dict[str, str] = {}
    removed = list(clean(lambda path, error: failed.setdefault(path, str(error))))
    if arguments.json:
        print(json.dumps({"removed": removed, "failed": failed}))
    else:
        for name in removed:
            print(name)
        for path, reason in failed.items():
            print(f"cannot remove the object of {path}: {reason}", file=sys.stderr)
        if not removed and not failed:
            print("nothing was left behind")
    return 1 if failed else 0
