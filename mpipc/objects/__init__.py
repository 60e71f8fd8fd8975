"""Stock's semantics and its private surface, for every mechanism; no kernel calls."""
