# Values and arrays with their lock: what stock's Synchronized wrappers do in Python functions.

cdef class SynchronizedCore:
    """A ctypes object and the lock that guards it."""

    cdef readonly object _obj
    cdef readonly object _lock
    cdef public object acquire
    cdef public object release

    def __init__(self, obj, lock):
        self._obj = obj
        self._lock = lock
        self.acquire = lock.acquire
        self.release = lock.release

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
        self.acquire()
        try:
            return self._obj.value
        finally:
            self.release()

    @value.setter
    def value(self, value):
        self.acquire()
        try:
            self._obj.value = value
        finally:
            self.release()


cdef class ArrayCore(SynchronizedCore):

    def __len__(self):
        return len(self._obj)

    def __getitem__(self, i):
        self.acquire()
        try:
            return self._obj[i]
        finally:
            self.release()

    def __setitem__(self, i, value):
        self.acquire()
        try:
            self._obj[i] = value
        finally:
            self.release()
