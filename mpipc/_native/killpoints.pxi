# For the tests of deaths: the places marked by kill_point(), in a build that has them.


def kill_points():
    """What is done before each place, and how often this process has passed it."""
    cdef kill_site* first = first_kill_site()
    cdef long i
    return [(first[i].what.decode(), first[i].passed) for i in range(kill_site_count())]


def die_at(long index, uint64_t passage):
    """Kill this process when it passes the place of that index for the `passage`-th time from now.

    The places are counted anew.
    """
    cdef kill_site* first = first_kill_site()
    cdef long i
    if not 0 <= index < kill_site_count():
        raise IndexError(f"kill point {index}; there are {kill_site_count()}")
    for i in range(kill_site_count()):
        first[i].passed = 0
    arm_kill_site(index, passage)
