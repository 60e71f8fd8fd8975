"""Word frequencies over the standard library: paths in one Queue, counts back in another.

Try it with ``python examples/word_count.py --context fork`` and ``--context mpipc-shm-fork``.
"""

from __future__ import annotations

import re
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from multiprocessing.context import BaseContext
from multiprocessing.queues import Queue
from pathlib import Path

WORD = re.compile(r"[A-Za-z]{2,}")
LINES_AT_ONCE = 25


def texts() -> list[Path]:
    """The sources and texts of the installed standard library, in a stable order."""
    root = Path(sysconfig.get_path("stdlib"))
    found = (
        path
        for path in root.rglob("*")
        if path.suffix in {".py", ".txt", ".rst"} and "site-packages" not in path.parts
    )
    return sorted(found)


def count_words(path: Path) -> Iterator[Counter[str]]:
    """Count a text's words, a few lines at a time, whatever its size."""
    with path.open(encoding="utf-8", errors="replace") as lines:
        while block := "".join(islice(lines, LINES_AT_ONCE)):
            yield Counter(WORD.findall(block.lower()))


def worker(tasks: Queue[Path | None], counts: Queue[Counter[str] | None]) -> None:
    """Count until the tasks end; a None tells the parent that a text is done."""
    while (path := tasks.get()) is not None:
        for part in count_words(path):
            counts.put(part)
        counts.put(None)


def main(
    ctx: BaseContext, progress: Callable[[int, int], None] | None = None, workers: int = 2
) -> dict[str, int]:
    """Count every word of every text.

    Parameters
    ----------
    ctx : multiprocessing.context.BaseContext
        Makes the queues and the processes.
    progress : callable, optional
        Called with the number of texts done and of all texts.
    workers : int
        How many processes count.

    Returns
    -------
    dict of str to int
        Each word and how often it occurs, the most frequent first.
    """
    paths = texts()
    tasks: Queue[Path | None] = ctx.Queue()
    counts: Queue[Counter[str] | None] = ctx.Queue()
    processes = [
        ctx.Process(target=worker, args=(tasks, counts))  # type: ignore[attr-defined]
        for _ in range(workers)
    ]
    for process in processes:
        process.start()
    for path in paths:
        tasks.put(path)
    for _ in processes:
        tasks.put(None)

    total: Counter[str] = Counter()
    done = 0
    while done < len(paths):
        part = counts.get()
        if part is None:
            done += 1
            if progress:
                progress(done, len(paths))
        else:
            total.update(part)
    for process in processes:
        process.join()
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))


def describe(result: dict[str, int]) -> str:
    """One line on the result."""
    top = ", ".join(f"{word} {count:,}" for word, count in islice(result.items(), 6))
    return f"{sum(result.values()):,} words, {len(result):,} different: {top}"


if __name__ == "__main__":
    from mpipc.cli.example import run_alone

    run_alone(main, describe)
