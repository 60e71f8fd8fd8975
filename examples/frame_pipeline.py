"""A video pipeline: NumPy frames of 1080p go from process to process through bounded queues.

Try it with ``python examples/frame_pipeline.py --context fork`` and ``--context mpipc-shm-fork``.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from multiprocessing.queues import Queue
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH = 1080, 1920
FRAMES = 120
IN_FLIGHT = 4

Frame: TypeAlias = NDArray[np.uint8]
# A frame's number, its mean brightness on a coarse grid, and a checksum of all its bytes.
Statistics: TypeAlias = tuple[int, float, int]


def scene(frames: int) -> Iterator[Frame]:
    """Synthesise a colour gradient that drifts, with a bright square that crosses it."""
    rows, columns = np.ogrid[:HEIGHT, :WIDTH]
    red, green, blue = rows % 256, columns % 256, (rows + columns) // 12 % 256
    gradient = np.dstack(np.broadcast_arrays(red, green, blue)).astype(np.uint8)
    for number in range(frames):
        frame = gradient + np.uint8(number)
        left = number * 17 % (WIDTH - 200)
        frame[440:640, left : left + 200] = 255
        yield frame


def camera(frames: int, raw: Queue[Frame | None]) -> None:
    """First stage: send each frame of the scene, then None."""
    for frame in scene(frames):
        raw.put(frame)
    raw.put(None)


def grade(raw: Queue[Frame | None], graded: Queue[Frame | None]) -> None:
    """Second stage: invert each frame."""
    while (frame := raw.get()) is not None:
        graded.put(np.invert(frame, out=frame))
    graded.put(None)


def measure(graded: Queue[Frame | None], statistics: Queue[Statistics | None]) -> None:
    """Third stage: send the statistics of each frame."""
    number = 0
    while (frame := graded.get()) is not None:
        brightness = float(frame[::16, ::16].mean())
        statistics.put((number, brightness, zlib.adler32(frame.data)))
        number += 1
    statistics.put(None)


def main(
    ctx: BaseContext, progress: Callable[[int, int], None] | None = None, frames: int = FRAMES
) -> list[Statistics]:
    """Run the pipeline.

    Parameters
    ----------
    ctx : multiprocessing.context.BaseContext
        Makes the queues and the processes.
    progress : callable, optional
        Called with the number of frames measured and of all frames.
    frames : int
        How many frames the camera sends.

    Returns
    -------
    list of tuple
        Number, mean brightness and checksum of each frame.
    """
    raw: Queue[Frame | None] = ctx.Queue(maxsize=IN_FLIGHT)
    graded: Queue[Frame | None] = ctx.Queue(maxsize=IN_FLIGHT)
    statistics: Queue[Statistics | None] = ctx.Queue()
    stages = [
        ctx.Process(target=stage, args=args)  # type: ignore[attr-defined]
        for stage, args in (
            (camera, (frames, raw)),
            (grade, (raw, graded)),
            (measure, (graded, statistics)),
        )
    ]
    for stage in stages:
        stage.start()

    result: list[Statistics] = []
    while (entry := statistics.get()) is not None:
        result.append(entry)
        if progress:
            progress(len(result), frames)
    for stage in stages:
        stage.join()
    return result


def describe(result: list[Statistics]) -> str:
    """One line on the result."""
    brightness = sum(mean for _, mean, _ in result) / len(result)
    return f"{len(result)} frames of {WIDTH}x{HEIGHT}, mean brightness {brightness:.1f}"


if __name__ == "__main__":
    from mpipc.cli.example import run_alone

    run_alone(main, describe)
