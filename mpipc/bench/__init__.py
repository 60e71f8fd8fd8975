"""How fast the objects are: scenarios, measured on several sides in turn.

``python -m mpipc bench`` is the way in. `model` says what a scenario and a goal are, `scenarios`
lists them all; `messages`, `synchronization`, `operations`, `pools` and `idle` do the measuring.
`sides` finds stock, ours and the peers that are installed, `sampling` lets them take turns,
`record` keeps the samples in JSON, `figures` makes figures of them, `report` and `plot` show these.
"""
