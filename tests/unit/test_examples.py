"""The examples, at a small size: the same results as on stock."""

from __future__ import annotations

import multiprocessing

import pytest
from mpipc.examples import frame_pipeline, pool_map, shared_histogram, simulation, word_count

PROGRAMS = {
    "word_count": (word_count.main, {}),
    "frame_pipeline": (frame_pipeline.main, {"frames": 6}),
    "simulation": (simulation.main, {"steps": 200}),
    "shared_histogram": (shared_histogram.main, {"samples": 500}),
    "pool_map": (pool_map.main, {"one_by_one": 300, "in_chunks": 300}),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_results_are_stocks(ctx, name, monkeypatch):
    main, sizes = PROGRAMS[name]
    if name == "word_count":
        texts = word_count.texts()[:40]
        monkeypatch.setattr(word_count, "texts", lambda: texts)
    seen = []
    stock = multiprocessing.get_context("fork")
    assert main(ctx, lambda *done: seen.append(done), **sizes) == main(stock, None, **sizes)
    done, total = seen[-1]
    assert 0 <= done <= total > 0
