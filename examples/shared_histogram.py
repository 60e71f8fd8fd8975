"""Many workers, one counter and one histogram: a Value and an Array, each under its lock.

Try it with ``python examples/shared_histogram.py --context fork`` and ``--context
mpipc-shm-fork``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from multiprocessing.context import BaseContext
from multiprocessing.sharedctypes import Synchronized, SynchronizedArray
from multiprocessing.synchronize import Barrier

BINS = 64
SAMPLES = 150_000
LOOK_EVERY = 0.05


def worker(
    start: Barrier,
    counter: Synchronized[int],
    histogram: SynchronizedArray[int],
    seed: int,
    samples: int,
) -> None:
    """Draw samples of a triangular distribution; count each one for all to see."""
    draw = random.Random(seed).triangular
    start.wait()
    for _ in range(samples):
        index = int(draw(0, BINS))
        with histogram.get_lock():
            histogram[index] += 1
        with counter.get_lock():
            counter.value += 1


def main(
    ctx: BaseContext,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 4,
    samples: int = SAMPLES,
) -> dict[str, int | list[int]]:
    """Fill the histogram.

    Parameters
    ----------
    ctx : multiprocessing.context.BaseContext
        Makes the shared objects and the processes.
    progress : callable, optional
        Called with the number of samples counted and of all samples.
    workers : int
        How many processes draw samples.
    samples : int
        How many samples each of them draws.

    Returns
    -------
    dict
        The counter under "counter", the bins under "histogram".
    """
    start = ctx.Barrier(workers)
    counter: Synchronized[int] = ctx.Value("q", 0)
    histogram: SynchronizedArray[int] = ctx.Array("q", BINS)
    processes = [
        ctx.Process(  # type: ignore[attr-defined]
            target=worker, args=(start, counter, histogram, seed, samples)
        )
        for seed in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        while process.is_alive():
            if progress:
                progress(counter.value, workers * samples)
            process.join(LOOK_EVERY)
    return {"counter": counter.value, "histogram": histogram[:]}


def describe(result: dict[str, int | list[int]]) -> str:
    """One line on the result."""
    bins = result["histogram"]
    assert isinstance(bins, list)
    return f"{result['counter']:,} samples in {len(bins)} bins, {max(bins):,} in the fullest"


if __name__ == "__main__":
    from mpipc.cli.example import run_alone

    run_alone(main, describe)
