"""Named objects: the last user removes them, whoever was killed before; nothing else is touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

from mpipc import get_context
from mpipc.adapters import leases
from mpipc.adapters.leases import Lease, clean, existing
from workers import SOON, Family


def remove(name):
    """The object of these tests is a file; gone is gone."""
    try:
        os.unlink(object_of(name))
    except FileNotFoundError:
        return


def refuse(name):
    raise OSError(f"not today, {name}")


def object_of(name):
    return os.path.join(os.environ["TMPDIR"], f"object-{name}")


def make():
    lease = Lease(remove)
    with open(object_of(lease.name), "x"):
        return lease


@pytest.fixture(autouse=True)
def private(tmp_path, monkeypatch):
    """A folder of the test's own, in which nothing is left."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(leases, "_directory", None)
    yield tmp_path
    assert os.listdir(tmp_path) == []


@pytest.fixture(params=["fork", "spawn"])
def family(request):
    with Family(get_context("pipe", start_method=request.param)) as family:
        yield family


def hold(lease, ready, go):
    assert os.path.exists(object_of(lease.name))
    ready.send(None)
    go.poll(None)


def hold_dropped(lease, ready, go):
    """As the last user who ends as processes do, with the object still there."""
    hold(lease, ready, go)
    assert os.path.exists(object_of(lease.name))


def start_holder(family, lease, target=hold, **kwargs):
    ctx = family._ctx
    ready, theirs = ctx.Pipe(duplex=False)
    wait, go = ctx.Pipe(duplex=False)
    process = family.start(target, lease, theirs, wait, **kwargs)
    ready.recv()
    return process, go


def test_the_only_user_removes():
    lease = make()
    assert existing() == [lease.path]
    assert list(clean()) == []
    lease.release()
    lease.release()
    assert existing() == [] and not os.path.exists(object_of(lease.name))


def test_so_does_garbage_collection():
    name = make().name
    assert not os.path.exists(object_of(name))


def test_the_directory_and_the_leases_are_private():
    lease = make()
    directory = os.path.dirname(lease.path)
    assert os.stat(directory).st_mode & 0o777 == 0o700
    assert os.stat(lease.path).st_mode & 0o777 == 0o600


def test_a_lease_that_somebody_deleted():
    lease = make()
    os.unlink(lease.path)
    os.rmdir(os.path.dirname(lease.path))
    other = make()
    lease.release()
    assert not os.path.exists(object_of(lease.name)) and os.path.exists(object_of(other.name))


def test_what_a_killed_child_had_goes_with_the_next_release(family):
    lease = make()
    process, _ = start_holder(family, lease, hold_dropped, exitcode=-signal.SIGKILL)
    lease.release()
    process.kill()
    process.join()
    assert os.path.exists(object_of(lease.name))
    make().release()
    assert not os.path.exists(object_of(lease.name)) and existing() == []


def test_a_child_keeps_what_its_parent_lets_go(family):
    lease = make()
    process, go = start_holder(family, lease, hold_dropped)
    lease.release()
    assert list(clean()) == [] and os.path.exists(object_of(lease.name))
    go.send(None)
    process.join(SOON)
    assert not os.path.exists(object_of(lease.name))


def test_a_killed_child_leaves_its_parent_the_object(family):
    lease = make()
    process, _ = start_holder(family, lease, exitcode=-signal.SIGKILL)
    process.kill()
    process.join(SOON)
    assert list(clean()) == [] and os.path.exists(object_of(lease.name))
    lease.release()
    assert not os.path.exists(object_of(lease.name))


def test_what_a_killed_last_user_leaves_is_cleaned(family):
    lease = make()
    process, _ = start_holder(family, lease, exitcode=-signal.SIGKILL)
    lease.release()
    process.kill()
    process.join(SOON)
    assert os.path.exists(object_of(lease.name))
    assert list(clean()) == [lease.name]
    assert not os.path.exists(object_of(lease.name))


def test_an_object_that_was_never_made_or_is_gone():
    lease = Lease(remove)
    lease.release()
    lease = make()
    os.unlink(object_of(lease.name))
    lease.release()
    assert existing() == []


def test_abandoned_with_an_object_of_another():
    lease = make()
    lease.abandon()
    assert existing() == []
    os.unlink(object_of(lease.name))


def leave_behind(how, lease):
    """Take all but the file from a lease, as SIGKILL does."""
    os.close(lease.__dict__.pop("_fd"))
    if how == "no record":
        os.truncate(lease.path, 0)
        os.unlink(object_of(lease.name))
    elif how == "no object":
        os.unlink(object_of(lease.name))


@pytest.mark.parametrize("how", ["no record", "no object", "all"])
def test_killed_at_each_step(how):
    lease = make()
    leave_behind(how, lease)
    assert list(clean()) == [lease.name]
    assert existing() == [] and not os.path.exists(object_of(lease.name))


def test_many_clean_at_once_while_others_live():
    dead, living = [make() for _ in range(50)], [make() for _ in range(50)]
    for lease in dead:
        leave_behind("all", lease)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.extend(clean())) for _ in range(4)]
    for thread in threads:
        thread.start()
    # Meanwhile others come and go.
    for _ in range(100):
        lease = make()
        assert os.path.exists(object_of(lease.name))
        lease.release()
    for thread in threads:
        thread.join()
    # Each by one of them; perhaps also one whose user had just closed it.
    assert len(found) == len(set(found)) and {lease.name for lease in dead} <= set(found)
    assert all(os.path.exists(object_of(lease.name)) for lease in living)
    for lease in living:
        lease.release()


def test_what_cannot_be_removed_is_told_and_stays():
    stubborn, usual = Lease(refuse), make()
    leave_behind("all", usual)
    os.close(stubborn.__dict__.pop("_fd"))
    told: list[tuple[str, str]] = []
    assert list(clean(lambda path, error: told.append((path, str(error))))) == [usual.name]
    assert told == [(stubborn.path, f"not today, {stubborn.name}")]
    assert existing() == [stubborn.path]
    os.truncate(stubborn.path, 0)
    assert list(clean()) == [stubborn.name]


@pytest.mark.parametrize("what", ["file", "link", "open to others", "of another user"])
def test_what_only_has_such_a_name_is_left_alone(what, private, monkeypatch):
    directory = private / f"mpipc-{os.getuid()}-{'0' * 24}"
    lease = private / f"mpipc-{'0' * 24}"
    lease.write_text("test_leases:refuse")
    if what == "file":
        lease.rename(directory)
    elif what == "link":
        (private / "elsewhere").mkdir(0o700)
        directory.symlink_to(private / "elsewhere")
        lease.rename(directory / lease.name)
    else:
        directory.mkdir(0o700)
        lease.rename(directory / lease.name)
        if what == "open to others":
            directory.chmod(0o770)
        else:
            other = os.getuid() + 1
            monkeypatch.setattr(os, "getuid", lambda: other)
            directory.rename(private / f"mpipc-{other}-{'0' * 24}")
    told: list[str] = []
    assert list(clean(lambda path, _: told.append(path))) == [] and told == []
    monkeypatch.undo()
    subprocess.run(["rm", "-r", *private.iterdir()], check=True)


PROGRAM = """
import multiprocessing, os, signal, sys, time
import mpipc

def keep(objects, ready):
    ready.send(os.getpid())
    time.sleep(100)

if __name__ == "__main__":
    ctx = multiprocessing.get_context(f"mpipc-{sys.argv[1]}")
    objects = [ctx.Queue(), ctx.Lock(), ctx.Value("i"), ctx.Array("d", 100_000)]
    ready, theirs = multiprocessing.Pipe(duplex=False)
    processes = [ctx.Process(target=keep, args=(objects, theirs), daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    pids = [ready.recv() for process in processes]
    if sys.argv[2] == "children":
        victims = pids
    elif sys.argv[2] == "all":
        victims = [*pids, os.getpid()]
    else:
        victims = []
    for pid in victims:
        os.kill(pid, signal.SIGKILL)
"""
USER = "import multiprocessing, mpipc; multiprocessing.get_context('mpipc-shm').Lock()"


@pytest.mark.parametrize("context", ["posix-fork", "posix-spawn", "sysv-fork", "sysv-spawn"])
@pytest.mark.parametrize("killed", ["none", "children", "all"])
def test_a_program_and_the_next(context, killed, private):
    program = private / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run([sys.executable, program, context, killed], timeout=SOON)
    assert done.returncode == (-signal.SIGKILL if killed == "all" else 0)
    program.unlink()
    assert bool(existing()) == (killed == "all")
    # Any other program with mpipc.
    subprocess.run([sys.executable, "-c", USER], check=True, timeout=SOON)
    assert existing() == []


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_the_command(options):
    def command():
        done = subprocess.run(
            [sys.executable, "-m", "mpipc", "clean", *options],
            capture_output=True,
            text=True,
            timeout=SOON,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        return done.returncode, done.stdout, done.stderr

    def expected(removed, failed):
        if options:
            return json.dumps({"removed": removed, "failed": failed}) + "\n", ""
        text = "".join(f"{line}\n" for line in removed)
        errors = [f"cannot remove the object of {path}: {why}\n" for path, why in failed.items()]
        return text or ("" if failed else "nothing was left behind\n"), "".join(errors)

    assert command() == (0, *expected([], {}))
    living, dead, stubborn = make(), make(), Lease(refuse)
    leave_behind("all", dead)
    os.close(stubborn.__dict__.pop("_fd"))
    failed = {stubborn.path: f"not today, {stubborn.name}"}
    assert command() == (1, *expected([dead.name], failed))
    assert sorted(existing()) == sorted([living.path, stubborn.path])
    os.truncate(stubborn.path, 0)
    assert command() == (0, *expected([stubborn.name], {}))
    living.release()
