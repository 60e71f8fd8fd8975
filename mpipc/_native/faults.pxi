# For the tests of failing system calls: the places that make one, in a build that can.


def call_sites():
    """Of each place: the call, the function it is in, how often it was passed, how often failed.

    Counted are this process and those that it has forked.
    """
    cdef call_site* first = first_call_site()
    cdef long i
    return [(first[i].call.decode(), first[i].where.decode(),
             count_of_call(i).passed, count_of_call(i).failed)
            for i in range(call_site_count())]


def fail_at(long index, uint64_t passage, int error, bint lasting=False):
    """Make the call at the place of that index fail, the `passage`-th time from now.

    With -1 for the index nothing fails. If `lasting`, all later calls of the same name fail too,
    wherever they are made, until fail_no_more(). The passages are counted anew.
    """
    if not -1 <= index < call_site_count():
        raise IndexError(f"call site {index}; there are {call_site_count()}")
    arm_call_site(index, passage, error, lasting)


def fail_no_more():
    """Let all calls through again."""
    disarm_call_site()
