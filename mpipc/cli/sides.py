"""Choose the two contexts of a comparison on a command line."""

from __future__ import annotations

import argparse
import multiprocessing

from mpipc._registry import START_METHODS

__all__ = ["add_start_method", "with_start_method"]


def add_start_method(parser: argparse.ArgumentParser) -> None:
    """Declare ``--start-method``, by default the platform's."""
    parser.add_argument(
        "--start-method",
        choices=START_METHODS,
        default=multiprocessing.get_context().get_start_method(),
        help="how processes start (default: the platform's, %(default)s)",
    )


def with_start_method(context: str, method: str) -> str:
    """The name of a context that names its start method: `method`, if it has none yet."""
    return context if context.endswith(START_METHODS) else f"{context}-{method}"
