"""Many small tasks in a Pool: how long is the Collatz sequence of each number?

Try it with ``python examples/pool_map.py --context fork`` and ``--context mpipc-shm-fork``.
"""

from __future__ import annotations

from collections.abc import Callable
from multiprocessing.context import BaseContext

ONE_BY_ONE = 30_000
IN_CHUNKS = 90_000
REPORT_EVERY = 100


def collatz(number: int) -> tuple[int, int]:
    """The number and the length of its Collatz sequence."""
    current, length = number, 1
    while current != 1:
        current = current // 2 if current % 2 == 0 else 3 * current + 1
        length += 1
    return number, length


def main(
    ctx: BaseContext,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 2,
    one_by_one: int = ONE_BY_ONE,
    in_chunks: int = IN_CHUNKS,
) -> dict[int, int]:
    """Measure the first sequences by `imap_unordered`, one by one, and the next ones by `map`.

    Parameters
    ----------
    ctx : multiprocessing.context.BaseContext
        Makes the pool.
    progress : callable, optional
        Called with the number of tasks done and of all tasks.
    workers : int
        How many processes the pool has.
    one_by_one : int
        How many numbers go one by one through `imap_unordered`.
    in_chunks : int
        How many further numbers go in chunks through `map`.

    Returns
    -------
    dict of int to int
        Each number and the length of its sequence.
    """
    everything = one_by_one + in_chunks
    lengths: dict[int, int] = {}
    with ctx.Pool(workers) as pool:
        for number, length in pool.imap_unordered(collatz, range(1, one_by_one + 1)):
            lengths[number] = length
            if progress and len(lengths) % REPORT_EVERY == 0:
                progress(len(lengths), everything)
        lengths.update(pool.map(collatz, range(one_by_one + 1, everything + 1), chunksize=20))
        if progress:
            progress(everything, everything)
        pool.close()
        pool.join()
    return dict(sorted(lengths.items()))


def describe(result: dict[int, int]) -> str:
    """One line on the result."""
    number = max(result, key=lambda number: result[number])
    return f"{len(result):,} numbers; the longest sequence, {result[number]} long, is {number:,}'s"


if __name__ == "__main__":
    from mpipc.cli.example import run_alone

    run_alone(main, describe)
