"""CPython's tests of multiprocessing for one start method; spawned children import them, too."""

import os

from suites import METHOD_VARIABLE
from test import _test_multiprocessing as suite  # type: ignore[import-not-found]

# As when the tests were one module, up to Python 3.11: the fork server imports them, instead of
# each of its children.
suite.PRELOAD = ["__main__", __name__]
suite.install_tests_in_module_dict(globals(), os.environ[METHOD_VARIABLE])
