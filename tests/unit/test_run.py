"""`python -m mpipc run`: the program must not notice."""

from __future__ import annotations

import multiprocessing
import py_compile
import re
import signal
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest

import workers
from workers import SOON

pytestmark = pytest.mark.beyond_stock("about our own command")

METHODS = ("fork", "spawn", "forkserver")

PROGRAM = '''
    """What a program sees of itself."""
    import atexit, multiprocessing, os, sys, threading
    from multiprocessing import Process, Queue

    class Failure(Exception):
        pass

    def child(queue):
        queue.put((__name__, sys.argv, os.path.basename(__file__), type(multiprocessing.Lock())))

    if __name__ == "__main__":
        command, *arguments = sys.argv[1:]
        main = sys.modules["__main__"]
        print(__name__, __file__, __doc__, main.__dict__ is globals(), sys.argv, sys.path[0])
        print(__spec__ and __spec__.name, __package__, type(__loader__).__name__)
        print(multiprocessing.get_start_method(allow_none=True))
        atexit.register(print, "at exit")
        if command in ("fork", "spawn", "forkserver"):
            multiprocessing.set_start_method(command)
            queue = Queue()
            process = Process(target=child, args=(queue,))
            process.start()
            print(*queue.get())
            process.join()
            print(process.exitcode)
        if command == "thread":
            threading.Thread(target=print, args=("thread",)).start()
        if command == "exit":
            sys.exit(arguments[0] if arguments[0].isalpha() else int(arguments[0]))
        if command == "raise":
            raise Failure("with a text")
        if command == "hook":
            sys.excepthook = lambda kind, error, traceback: print(
                "hook", kind, error, traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
            )
            raise Failure
        if command == "signal":
            os.kill(os.getpid(), int(arguments[0]))
            threading.Event().wait(20)
'''


def both(folder, *arguments, input=None, **environment):
    """Run Python without and with us; return the status, output and errors of each."""
    results = []
    for ours in ((), ("-m", "mpipc", "run")):
        done = subprocess.run(
            [sys.executable, *ours, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SOON,
            input=input,
            env=workers.environment() | environment,
        )
        results.append((done.returncode, done.stdout, done.stderr))
    return results


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "__main__.py").write_text(textwrap.dedent(PROGRAM))
    (tmp_path / "link.py").symlink_to(tmp_path / "sub" / "__main__.py")
    (tmp_path / "broken.py").write_text("one = 1\ntwo = = 2\n")
    return tmp_path


@pytest.mark.parametrize("what", ["program.py", "-m program", "sub", "-m sub", "link.py"])
@pytest.mark.parametrize(
    "command",
    [
        "none --context x -m y -- z",
        "exit 0",
        "exit 7",
        "exit text",
        "raise",
        "hook",
        "thread",
        f"signal {signal.SIGINT:d}",
        f"signal {signal.SIGTERM:d}",
        f"signal {signal.SIGKILL:d}",
    ],
)
def test_the_same_as_without(folder, what, command):
    without, with_us = both(folder, *what.split(), *command.split())
    assert with_us == without


@pytest.mark.parametrize("what", ["program.py", "-m program"])
@pytest.mark.parametrize("method", METHODS)
def test_children(folder, what, method):
    without, with_us = both(folder, *what.split(), method, "an argument")
    assert without[0] == 0 and without[2] == ""
    assert "multiprocessing.synchronize.Lock" in without[1]
    ours = without[1].replace("multiprocessing.synchronize.Lock", "mpipc.mechanisms.shm.Lock")
    assert with_us == (0, ours, "")


@pytest.mark.parametrize(
    "what", [["broken.py"], ["missing.py"], ["-m", "missing"], ["-m", "sub.x"]]
)
def test_what_cannot_run(folder, what):
    without, with_us = both(folder, *what)
    assert without[0] != 0
    assert with_us == without


MAIN_CLASSES = """
    import multiprocessing, sys

    class Point:
        def __init__(self, x):
            self.x = x

    class Failure(Exception):
        pass

    def point(x):
        return Point(x)

    def fail(x):
        raise Failure(x)

    if __name__ == "__main__":
        with multiprocessing.get_context(sys.argv[1]).Pool(1) as pool:
            print([made.x for made in pool.map(point, range(3))])
            try:
                pool.apply(fail, (4,))
            except Failure as failure:
                print(failure.args)
"""


@pytest.mark.parametrize("what", ["classes.py", "-m classes"])
@pytest.mark.parametrize("method", METHODS)
def test_objects_of_the_programs_classes_come_back_from_children(tmp_path, what, method):
    (tmp_path / "classes.py").write_text(textwrap.dedent(MAIN_CLASSES))
    without, with_us = both(tmp_path, *what.split(), method)
    assert without == (0, "[0, 1, 2]\n(4,)\n", "")
    assert with_us == without


def test_other_forms_of_programs(folder):
    archive = folder / "program.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(folder / "sub" / "__main__.py", "__main__.py")
    compiled = py_compile.compile(folder / "program.py", folder / "compiled.pyc")
    # From 3.11 on, told so, Python puts no folder on the path but one that it runs.
    for safe in ("", "1"):
        for what in (archive, folder / "sub", compiled):
            without, with_us = both(folder, str(what), "none", PYTHONSAFEPATH=safe)
            assert without[0] == 0, without[2]
            assert with_us == without


def test_a_program_on_standard_input(folder):
    code = "import multiprocessing, sys; print(sys.argv, __name__, multiprocessing.Lock)"
    without, with_us = both(folder, "-", "x", input=code)
    assert without[1].startswith("['-', 'x'] __main__")
    assert without[1].partition(" <")[0] == with_us[1].partition(" <")[0]


def test_the_names_of_a_script(tmp_path):
    code = "print(sorted(globals()), type(__builtins__), __builtins__.len([1]))"
    (tmp_path / "script.py").write_text(code)
    without, with_us = both(tmp_path, "script.py")
    assert without[0] == 0
    assert with_us == without


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "mpipc", "run", *arguments],
        capture_output=True,
        text=True,
        timeout=SOON,
        env=workers.environment() | environment,
    )


def test_the_context(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import multiprocessing; print(multiprocessing.get_context())")
    default = multiprocessing.get_context("mpipc-shm").get_start_method()
    for arguments, environment, method in (
        ([], {}, default),
        (["--context", "mpipc-shm-spawn"], {}, "spawn"),
        ([], {"MPIPC_CONTEXT": "mpipc-shm-forkserver"}, "forkserver"),
        (["--context", "mpipc-shm-spawn"], {"MPIPC_CONTEXT": "mpipc-shm-fork"}, "spawn"),
    ):
        done = run(*arguments, str(script), **environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert re.search(r"mpipc-\w+-(\w+)", done.stdout)[1] == method


def test_an_unknown_context(tmp_path):
    done = run("--context", "mpipc-no", "script.py")
    assert done.returncode == 2
    assert "mpipc-no" in done.stderr and "mpipc-shm-spawn" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_program():
    done = run()
    assert done.returncode == 2
    assert "SCRIPT" in done.stderr and "MODULE" in done.stderr


def test_unittest(tmp_path):
    (tmp_path / "test_one.py").write_text(
        textwrap.dedent("""
            import multiprocessing, unittest

            def child(queue):
                queue.put(type(queue).__module__)

            class Test(unittest.TestCase):
                def test_queue(self):
                    for method in ("fork", "spawn", "forkserver"):
                        ctx = multiprocessing.get_context(method)
                        queue = ctx.Queue()
                        process = ctx.Process(target=child, args=(queue,))
                        process.start()
                        self.assertEqual(queue.get(), "mpipc.mechanisms.shm")
                        process.join()
        """)
    )
    done = subprocess.run(
        [sys.executable, "-m", "mpipc", "run", "-m", "unittest", "-v", "test_one"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=SOON,
        env=workers.environment(),
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 1 test" in done.stderr


@pytest.mark.watchdog(120)
@pytest.mark.parametrize(
    "name", ["frame_pipeline", "pool_map", "shared_histogram", "simulation", "word_count"]
)
def test_the_examples(name):
    script = Path(__file__).parents[2] / "examples" / f"{name}.py"
    done = run(str(script), "--context", "fork")
    assert (done.returncode, done.stderr) == (0, "")
    assert "s with fork" in done.stdout
