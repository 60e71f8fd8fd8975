"""Programs for several threads; see programs.pxi for what their operations are."""

from __future__ import annotations

from typing import Any

SMALL, LARGE, LARGER, HUGE = 16, 5000, 30000, 70000
MS = 1_000_000
FOR_EVER, NOT_AT_ALL = -1, 0
OR_END = -2  # for ever, or until the other end is gone

Op = tuple[str, int, int]
Program = dict[str, Any]


def put(size: int = SMALL, timeout: int = FOR_EVER) -> Op:
    return ("put", size, timeout)


def get(timeout: int = FOR_EVER) -> Op:
    return ("get", 0, timeout)


def do(name: str, timeout: int = FOR_EVER, arg: int = 1) -> Op:
    return (name, arg, timeout)


get_sure, size = do("get", NOT_AT_ALL), do("size", arg=4)
size_of_one = do("size")
get_all, poll, select = do("get_all"), do("poll"), do("select")
expose, task_done, join = do("expose"), do("task_done"), do("join")
close_read, close_write = do("close_read"), do("close_write")
put_allotted = do("put_allotted", arg=LARGE)
shut_down, put_three_quietly = do("shut_down"), do("put_quietly", arg=3)
section = do("section")
acquire, release = do("acquire"), do("release")
undo_acquire, undo_release = do("undo_acquire"), do("undo_release")
wait, notify, notify_all = do("wait"), do("notify"), do("notify_all", arg=2)
event_wait, event_set, event_clear = do("event_wait"), do("event_set"), do("event_clear")


def program(*threads: list[Op], **options: Any) -> Program:
    """What is run. Options, beside those of the objects:

    before, taken: messages that are there at first, and how many of them are taken again; cpus: 2,
    to spin before sleeping; yields: takers yield before they sleep; slices: sleeps may end by time
    or signal while others can run; kills: how many threads may be killed (victims: which); crowd:
    so many wait for the condition already; unopened: the threads race for the first use; trimming:
    memory is given back early.
    """
    return {"threads": list(threads), **options}


IN_VAIN = [get(90 * MS)] * 2
SHRINKING: Program = {"before": [HUGE] * 4, "taken": 4, "trimming": True}

PROGRAMS: dict[str, Program] = {
    # -- messages
    "ONE_AND_ONE": program([put(), put()], [get(), get()]),
    "ONE_AND_TWO": program([put(), put()], [get()], [get()]),
    "SURE": program([get_sure], [get_sure, put()], [put(), size], before=[SMALL] * 2),
    "TWO_AND_ONE": program([put()], [put()], [get(), get()]),
    "TWO_AND_TWO": program([put()], [put()], [get()], [get()]),
    "ONE_AND_THREE": program([put(), put(), put()], [get()], [get()], [get()]),
    "EARLY_SLICES": program([put(), put()], [get()], [get()], slices=True),
    "TIMEOUTS": program([put(), put(), put()], [get(5 * MS), get()], [get(150 * MS)], slices=True),
    "SPINNING": program([put(), put()], [get(), get()], cpus=2),
    "YIELDING": program([put(), put()], [get()], [get()], yields=True),
    "YIELDING_SLICES": program([put(), put()], [get()], [get()], yields=True, slices=True),
    "FIRST_USE": program([put()], [get()], [put(), get()], unopened=True),
    "MELEE": program(*[[put(), get()]] * 5, maxsize=2),
    "MELEE_LARGE": program(*[[put(LARGE), get(), put(LARGER), get()]] * 4),
    "MELEE_POLLS": program(*[[put(), do("poll", 300 * MS), get()]] * 4, slices=True),
    "QUIET": program([put_three_quietly], [get(), get()], [get()]),
    "QUIET_BESIDE_ANOTHER": program([do("put_quietly", arg=2)], [put()], [get(), get()], [get()]),
    # -- bounds
    "BOUNDED": program([put(), put()], [get(), get()], maxsize=1),
    "BOUNDED_SIZE": program([put(), put()], [get(), get()], [size_of_one] * 2, maxsize=1),
    "BOUNDED_TWO_PUTTERS": program([put()], [put()], [get(), get()], maxsize=1),
    "BOUNDED_MANY": program([put(), put()], [put()], [get(), get()], [get()], maxsize=1),
    "BOUNDED_TIMEOUT": program(
        [put(), put(SMALL, 50 * MS)], [get(), get(200 * MS)], maxsize=1, slices=True
    ),
    "BOUNDED_BYTES": program([put(900), put(900)], [put(900)], [get()] * 3, maxbytes=1000),
    "BOUNDED_SPINNING": program([put(), put()], [get(), get()], maxsize=1, cpus=2),
    # -- looking without taking
    "POLL_PASSES_ON": program([put()], [do("poll", 300 * MS)], [get()]),
    "POLL_AND_GET": program([put(), put()], [poll, get()], [get()]),
    # -- the doorbell
    "SELECT": program([put(), put()], [expose, select, select]),
    "SELECT_AND_GET": program([put(), put()], [select], [get()], exposed=True),
    "EXPOSED_LATE": program([put()], [put()], [expose, get(), get()]),
    "PIPE": program([put(), put()], [get(), get()], pipe=True, ends={0: "w", 1: "r"}),
    "PIPE_YIELDING": program(
        [put(), put()], [get(), get()], pipe=True, ends={0: "w", 1: "r"}, yields=True
    ),
    "PIPE_CLOSED": program([put(), close_write], [get_all], pipe=True, ends={0: "w", 1: "r"}),
    "PIPE_OF_TWO_WRITERS": program(
        [put(), close_write],
        [put(), close_write],
        [get_all],
        pipe=True,
        ends={0: "w", 1: "w", 2: "r"},
    ),
    "QUEUE_CLOSED": program(
        [put(), close_write], [get_all], [get_all], ends={0: "w", 1: "r", 2: "r"}
    ),
    "READER_CLOSED": program(
        [put(), put(SMALL, OR_END)], [get(), close_read], maxsize=1, ends={0: "w", 1: "r"}
    ),
    "SHUT_DOWN": program([put(), shut_down], [get_all], [get_all]),
    "SHUT_DOWN_BOUNDED": program(
        [put(LARGE, OR_END), put(SMALL, OR_END)], [shut_down], [get_all], maxsize=1
    ),
    # -- large messages: extents split, merged, grown
    "ALLOTTED": program([put_allotted], [put(LARGE)], [get(), get()]),
    "ALLOTTED_AGAIN": program([put_allotted, put_allotted], [get(), get()]),
    "ALLOTTED_BOUNDED": program(
        [do("put_allotted", 300 * MS, LARGE), put()], [get(), get()], maxsize=1, before=[SMALL]
    ),
    "LARGE": program([put(LARGE), put(LARGER)], [get(), get()]),
    "LARGE_BOTH_WAYS": program([put(LARGE), get()], [put(LARGER), get()]),
    "LARGE_IN_HOLES": program(
        [put(LARGE), put(LARGER)],
        [get(), put(LARGE)],
        [get(), get()],
        before=[LARGER, LARGE, LARGER, LARGE, LARGER],
        taken=4,
    ),
    "LARGE_BOUNDED": program([put(LARGE)], [put(LARGE, 50 * MS)], [get()], maxsize=1, slices=True),
    "CHUNKS": program([put(4000), put(4000)], [get(), get(), get()], before=[4000, 4000]),
    "SPARE_CHUNK": program(
        [put(4000), put(4000)], [get(), get(), get()], before=[4000] * 20, taken=18
    ),
    # -- memory that is given back, and needed again
    "TRIMMED": program(
        [*IN_VAIN, put(HUGE), put(SMALL)], [get(90 * MS)] * 3, **SHRINKING, slices=True
    ),
    "TRIMMED_BETWEEN": program(
        [put(4000), put(HUGE), put(4000)],
        [get(90 * MS)] * 3,
        [*IN_VAIN, put(LARGER), get(90 * MS)],
        **SHRINKING,
        slices=True,
    ),
    # -- locks
    "LOCK": program([section, section], [section]),
    "LOCK_OF_THREE": program([section], [section], [section, section]),
    "LOCK_SPINNING": program([section, section], [section], cpus=2),
    "MUTEX": program([acquire, release] * 2, [acquire, release]),
    "MUTEX_OF_THREE": program([acquire, release], [acquire, release], [acquire, release]),
    "MUTEX_TIMEOUT": program(
        [acquire, release], [do("acquire", 3 * MS), release], [acquire, release], slices=True
    ),
    "MUTEX_SPINNING": program([acquire, release] * 2, [acquire, release], cpus=2),
    "SEMAPHORE": program([acquire, release], [acquire, release], [acquire, release], most_units=2),
    "SEMAPHORE_HANDED_OVER": program(
        [acquire, acquire], [release], [release], units=0, most_units=9
    ),
    "SEMAPHORE_TWO_WAIT": program([acquire], [acquire], [release, release], units=0, most_units=9),
    "SEMAPHORE_TIMEOUT": program(
        [do("acquire", 3 * MS)],
        [acquire],
        [release, release],
        units=0,
        most_units=9,
        slices=True,
    ),
    "UNDO": program([undo_acquire, undo_release], [undo_acquire, undo_release]),
    "UNDO_OF_THREE": program(*[[undo_acquire, undo_release]] * 3, units=2, most_units=2),
    "UNDO_TIMEOUT": program(
        [undo_acquire, undo_release], [do("undo_acquire", 3 * MS), undo_release], slices=True
    ),
    # -- conditions, events, tasks
    "CONDITION": program([wait], [notify]),
    "CONDITION_OF_TWO": program([wait], [wait], [notify, notify]),
    "CONDITION_ALL": program([wait], [wait], [notify_all]),
    "CONDITION_CROWD": program([wait], [wait], [notify_all], crowd=62),
    "CONDITION_TIMEOUT": program([do("wait", 3 * MS)], [wait], [notify, notify], slices=True),
    "CONDITION_SPINNING": program([wait], [wait], [notify, notify], cpus=2),
    "EVENT": program([event_wait], [event_wait], [event_set]),
    "EVENT_CLEARED": program([event_wait], [event_set, event_clear, event_set], [event_wait]),
    "EVENT_TIMEOUT": program([do("event_wait", 3 * MS)], [event_set], [event_wait], slices=True),
    "EVENT_SPINNING": program([event_wait], [event_set, event_clear, event_set], cpus=2),
    "JOIN": program([put(), join], [get(), task_done], joinable=True),
    "JOIN_OF_TWO": program(
        [put(), put(), join], [get(), task_done], [get(), task_done], joinable=True
    ),
    "JOIN_TWICE": program([put(), join], [put(), join], [get(), task_done] * 2, joinable=True),
    "JOIN_REDELIVERED": program(
        [put(), put(LARGE), join], [get(), task_done], [get(), task_done], redeliver=True
    ),
    "REDELIVER": program(*[[put(), get(), task_done]] * 3, redeliver=True),
    # -- a thread is killed
    "KILLED_PUTTING": program([put()], [put(), get(NOT_AT_ALL)], [put(), get(NOT_AT_ALL)], kills=1),
    "KILLED_WAITING": program([put(), put()], [get(300 * MS)], [get(300 * MS)], kills=1),
    "KILLED_LARGE": program(
        [put(LARGE), put(LARGER)],
        [get(300 * MS), put(LARGE), get(300 * MS)],
        before=[LARGE],
        kills=1,
    ),
    "KILLED_TRIMMING": program(
        [*IN_VAIN, put(HUGE), put(4000), put(LARGER)],
        *[[get(90 * MS)] * 3] * 2,
        **SHRINKING,
        kills=1,
    ),
    "KILLED_ALLOTTED": program(
        [put_allotted, put(LARGE)], [get(300 * MS), put(LARGE)], [get(300 * MS)], kills=1
    ),
    "KILLED_ALLOTTED_TWICE": program(
        [put_allotted], [get(300 * MS), put(LARGE)], [put(LARGE), get(300 * MS)], kills=2
    ),
    "KILLED_BOUNDED": program([put(SMALL, 300 * MS)] * 2, [get(300 * MS)] * 2, maxsize=1, kills=1),
    "KILLED_EXPOSED": program([put()], [put(), get(300 * MS)], exposed=True, kills=1),
    "KILLED_TWICE": program(
        [put(LARGE), get(300 * MS)],
        [put(LARGE), get(300 * MS)],
        [put(), get(300 * MS)],
        before=[SMALL],
        kills=2,
    ),
    "KILLED_IN_MELEE": program(*[[put(LARGE, 300 * MS), get(300 * MS)]] * 5, maxsize=3, kills=2),
    "KILLED_IN_LOCK": program([section, section], [section], [section], kills=1),
    "KILLED_WITH_MUTEX": program([acquire, release], [acquire, release], kills=1, victims=[0]),
    "KILLED_WITH_UNIT": program(
        [undo_acquire, undo_release], [undo_acquire, undo_release], kills=1
    ),
    "KILLED_IN_CONDITION": program(
        [do("wait", 300 * MS)], [do("wait", 300 * MS)], [notify], kills=1, victims=[0]
    ),
    "KILLED_WITH_TASK": program(
        [put(), put()],
        [get(300 * MS), do("task_done", 0)],
        [get(300 * MS)],
        joinable=True,
        kills=1,
    ),
    "KILLED_REDELIVERED": program(
        [put(), put(LARGE)], *[[get(300 * MS), do("task_done", 0)]] * 2, redeliver=True, kills=1
    ),
    "KILLED_AND_JOINED": program(
        [put(), put(), join],
        *[[get(300 * MS), do("task_done", 0)] * 2] * 2,
        redeliver=True,
        kills=1,
        victims=[1],
    ),
    "KILLED_QUIET": program([put_three_quietly], [get(300 * MS)], [get(300 * MS)], kills=1),
}

# What is broken, in the order of scheduler.h, and the program that must show it.
MUTATIONS = [
    ("no wake-up after a put", "ONE_AND_ONE"),
    ("no wake-up after a take", "BOUNDED"),
    ("poll does not pass its wake-up on", "POLL_PASSES_ON"),
    ("unlock wakes nobody", "LOCK_OF_THREE"),
    ("release wakes nobody", "MUTEX_OF_THREE"),
    ("notify wakes nobody", "CONDITION"),
    ("Event.set wakes nobody", "EVENT"),
    ("the last task_done wakes nobody", "JOIN"),
    ("a unit given back wakes nobody", "UNDO"),
    ("put does not ring", "SELECT"),
    ("the doorbell is not drained", "SELECT"),
    ("a sleeper does not look again before it sleeps", "ONE_AND_ONE"),
    ("the number of a ticket is given twice", "EARLY_SLICES"),
    ("the lock is taken from its holder", "LOCK"),
    ("put commits after its unlock", "TWO_AND_ONE"),
    ("the dead leave no mark in the lock", "KILLED_PUTTING"),
    ("a merge does not say which extent is the last", "LARGE"),
    ("a freed extent is in no list", "LARGE"),
    ("the puts of a quiet run wake nobody", "QUIET"),
    ("what the dead have in hand is forgotten", "KILLED_REDELIVERED"),
    ("shutdown does not say so", "SHUT_DOWN"),
    ("who sends an array does not hold it any longer", "ALLOTTED"),
    ("memory that was given back is not backed again", "TRIMMED"),
]

# On real threads, over and over; each round leaves things as they were. Threads that share a handle
# are threads of one process.
STRESS: dict[str, Program] = {
    "MESSAGES": program([put(), put()], [put()], [get(), get()], [get()]),
    "SHARED": program([put(), put()], [put()], [get(), get()], [get()], shared=4),
    "BOUNDED": program([put(), put()], [put()], [get(), get()], [get()], maxsize=1),
    "BOUNDED_SHARED": program([put()], [put()], [get()], [get()], maxsize=1, shared=4),
    "LARGE": program([put(LARGE), get()], [put(LARGER), get()], [put(), get()]),
    "LARGE_SHARED": program(
        [put(LARGE), get()], [put(LARGER), get()], [put(LARGER), get()], shared=2
    ),
    "BACK_AND_FORTH": program(*[[put(), do("poll", 1 * MS), get()]] * 4, shared=4),
    "SELECT": program([put(), put()], [select], [get()], exposed=True, shared=4),
    "EXPOSED": program([put(), put()], [expose, get(), get()]),
    "QUIET": program([put_three_quietly], [get(), get()], [get()]),
    "TASKS": program([put(), put(), join], *[[get(), task_done]] * 2, joinable=True),
    "REDELIVERED": program(*[[put(), put(LARGE), *[get(), task_done] * 2]] * 3, redeliver=True),
    "TIMEOUTS": program(
        [put(SMALL, 1 * MS), get(1 * MS)],
        [get(1 * MS), put(SMALL, 1 * MS)],
        [get(NOT_AT_ALL)],
        maxsize=1,
        shared=4,
    ),
    "LOCK": program(*[[section]] * 4),
    "MUTEX": program(*[[acquire, release]] * 4),
    "MUTEX_TIMEOUT": program(*[[do("acquire", MS // 10), release]] * 4),
    "SEMAPHORE": program(*[[acquire, release]] * 4, units=2),
    "UNDO": program(*[[undo_acquire, undo_release]] * 3),
    "CONDITION": program([wait], [wait], [notify, notify]),
    "CONDITION_TIMEOUT": program([do("wait", MS // 10)], [wait], [notify, notify]),
    "EVENT": program([do("event_wait", MS // 10)], [event_set, event_clear]),
}
