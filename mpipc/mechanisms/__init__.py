"""One module per kernel mechanism: the objects that a context made from it hands out."""
