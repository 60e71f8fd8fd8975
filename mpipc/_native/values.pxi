# Values and arrays with their lock: what stock's Synchronized wrappers do in Python functions.

cdef class SynchronizedCore:
    """A ctypes object and the lock that guards it."""

    cdef readonly object _obj
    cdef readonly object _lock
    cdef object acquire_
    cdef object release_
    cdef SemLock plain          # the lock, if neither its methods nor these two are overridden

    def __init__(self, obj, lock):
        self._obj = obj
        self._lock = lock
        self.acquire_ = lock.acquire
        self.release_ = lock.release
        self.plain = plain_lock(lock)

    @property
    def acquire(self):
        """The lock's."""
        return self.acquire_

    @acquire.setter
    def acquire(self, function):
        self.acquire_ = function
        self.plain = None

    @property
    def release(self):
        """The lock's."""
        return self.release_

    @release.setter
    def release(self, function):
        self.release_ = function
        self.plain = None

    @cython.final
    cdef inline int enter(self) except -1:
        if self.plain is None:
            self.acquire_()
        else:
            self.plain.take()
        return 0

    @cython.final
    cdef inline int leave(self) except -1:
        if self.plain is None:
            self.release_()
        else:
            self.plain.give_back()
        return 0

    def __enter__(self):
        return self._lock.__enter__()

    def __exit__(self, *args):
        return self._lock.__exit__(*args)

    def get_obj(self):
        """The ctypes object itself."""
        return self._obj

    def get_lock(self):
        """The lock."""
        return self._lock

    def __reduce__(self):
        assert_spawning(self)
        return type(self), (self._obj, self._lock)


cdef class ValueCore(SynchronizedCore):

    @property
    def value(self):
        """What the value is, read and written while holding the lock."""
        self.enter()
        try:
            return self._obj.value
        finally:
            self.leave()

    @value.setter
    def value(self, value):
        self.enter()
        try:
            self._obj.value = value
        finally:
            self.leave()


cdef class ArrayCore(SynchronizedCore):

    def __len__(self):
        return len(self._obj)

    def __getitem__(self, i):
        self.enter()
        try:
            return self._obj[i]
        finally:
            self.leave()

    def __setitem__(self, i, value):
        self.enter()
        try:
            self._obj[i] = value
        finally:
            self.leave()
