"""Programs as people write them for multiprocessing; each takes the context to run on."""
