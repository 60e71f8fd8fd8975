"""The benchmarks: they measure what they say and count right; how fast things are is not asked."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mpipc.bench import idle
from mpipc.bench.figures import BELOW, MET, MISSED, Figure, changes, figures
from mpipc.bench.model import MICROSECONDS, Goal, Sample, Scenario
from mpipc.bench.plot import draw
from mpipc.bench.record import Result, Run, Series
from mpipc.bench.report import markdown, missing, rows
from mpipc.bench.sampling import Plan, calibrate, take_turns
from mpipc.bench.scenarios import all_scenarios
from mpipc.bench.sides import PEERS, Side, find_sides
from mpipc.bench.team import Team
from mpipc.cli import main

pytestmark = pytest.mark.beyond_stock("about the benchmarks")

DRAWS = pytest.mark.leaks_allowed("Matplotlib keeps its fonts open")

SCENARIOS = all_scenarios()
NO_VIEWS = "Queue() got an unexpected keyword argument 'views'"


def side_named(name, method="fork"):
    (side,), absent = find_sides([name], method)
    assert not absent
    return side


def scenario(measure, **options):
    goal = Goal(ratio=2)
    return Scenario("Locks", "some thing", MICROSECONDS, "Lock", measure, goal, **options)


def run_of(**sides):
    """A run of the scenario with_lock; p99 only where there are two lists."""
    found = {name.replace("_", "-"): Series(1, samples) for name, samples in sides.items()}
    run = Run("fork", 3, 0.1, {}, {}, "2026-01-01T00:00:00+00:00", None, {"cpu": "some"})
    run.results.append(Result("with_lock", "with Lock", found))
    return run


# Scenarios


@pytest.mark.parametrize("name", SCENARIOS)
@pytest.mark.parametrize("side", ["stock", "mpipc-shm"])
def test_every_scenario_measures(side, name, monkeypatch):
    monkeypatch.setattr(idle, "SECONDS", 0.02)
    chosen = SCENARIOS[name]
    context = side_named(side).context
    if name.endswith("two_cores") and len(os.sched_getaffinity(0)) < 2:
        with pytest.raises(RuntimeError, match="needs two processors"):
            chosen.measure(context, 3)
        return
    before = os.sched_getaffinity(0)
    try:
        sample = chosen.measure(context, chosen.count or 3)
    except TypeError as error:
        assert name.endswith("views") and NO_VIEWS in str(error)
        return
    assert 0 <= sample.seconds < 30
    assert (sample.p99 is not None) == (
        "trip" in name or "there_and_back" in name or "a_round" in name
    )
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("name", ["queue_int", "pipe_round_trip_one_core", "pool_map_chunksize_1"])
def test_scenarios_work_under_other_start_methods(name, method, forkserver):
    for side in ("stock", "mpipc-shm"):
        assert SCENARIOS[name].measure(side_named(side, method).context, 3).seconds > 0


# In a process of its own: peers keep threads, files and processes for as long as theirs lives.
PLAY = """
import sys
from mpipc.bench.scenarios import all_scenarios
from mpipc.bench.sides import find_sides

(side,), absent = find_sides([sys.argv[1]], "fork")
assert side.version
played = [each for each in all_scenarios().values() if side.plays(each)]
assert {each.needs for each in played} == side.offers
for needs in side.offers:
    shortest = next(each for each in played if each.needs == needs)
    assert shortest.measure(side.context, 3).seconds > 0
"""


@pytest.mark.watchdog(120)
@pytest.mark.parametrize("name", PEERS)
def test_peers_play_what_they_offer(name):
    if importlib.util.find_spec(PEERS[name].package) is None:
        pytest.skip(f"{name} is not installed")
    if name == "iceoryx2":
        pytest.skip("its files in /dev/shm look like leaks of tests that run beside this one")
    done = subprocess.run([sys.executable, "-c", PLAY, name], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_peers_that_are_not_there_are_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "loky", None)
    monkeypatch.delitem(sys.modules, "mpipc.bench.peers.loky", raising=False)
    sides, absent = find_sides(["stock", "loky"], "fork")
    assert [side.name for side in sides] == ["stock"]
    assert "loky" in absent["loky"]


def test_names_and_goals_are_as_typed_and_read():
    assert SCENARIOS["queue_numpy_1_mib"].title == "Queue, NumPy 1 MiB"
    assert SCENARIOS["with_lock"].goal == Goal(ratio=2.1)
    pipe = SCENARIOS["pipe_round_trip_two_cores"]
    assert pipe.goal.text(pipe.unit) == "under 3 us, p99 under 10 us"


def test_a_side_that_means_nothing_is_named():
    with pytest.raises(ValueError, match="no_such"):
        find_sides(["stock", "no_such"], "fork")


def exit_at_once():
    os._exit(3)


def test_a_member_that_dies_is_no_hang():
    with (
        pytest.raises(RuntimeError, match="exit code 3"),
        Team(side_named("stock").context) as team,
    ):
        team.add(exit_at_once)
        team.go()
        team.results()


# Sampling


def test_sides_take_turns_and_one_that_fails_does_not_stop_the_others():
    turns = []

    def measure(context, count):
        turns.append(context)
        if context == "bad" and turns.count("bad") > 1:
            raise OSError("no more")
        return Sample(0.5, p99=0.75)

    sides = [Side(name, name) for name in ("good", "bad")]
    sides.append(Side("elsewhere", "elsewhere", offers=frozenset({"Queue"})))
    steps = []
    plan = Plan(rounds=3, seconds=1)
    result = take_turns(scenario(measure, count=2), sides, plan, steps.append)
    assert turns == ["good", "bad", "good", "bad", "good"]
    assert steps == ["good", "bad"] * 4
    assert result.sides["good"] == Series(2, [0.5] * 3, [0.75] * 3)
    assert result.sides["bad"] == Series(2, [0.5], [0.75], "OSError: no more")


def test_calibration_finds_the_count_in_spite_of_a_hiccup():
    calls = itertools.count()

    def measure(context, count):
        return Sample(10.0 if next(calls) == 0 else 1e-3)

    side = Side("any", None)
    assert calibrate(scenario(measure), side, 1.0) == 1000
    calls = itertools.count(10)
    assert calibrate(scenario(measure, most=50), side, 1.0) == 50
    assert calibrate(scenario(measure, count=7), side, 1.0) == 7


# Figures


def test_ratios_are_those_of_rounds():
    # The machine was ten times slower in the last round: for both sides.
    found = figures([run_of(stock=[2.0, 2.0, 20.0], mpipc_shm=[1.0, 1.0, 10.0])])
    ours = found["with_lock"]["mpipc-shm"]
    assert (ours.seconds, ours.ratio, ours.ratio_spread) == (1.0, 2.0, 0.0)


def test_several_runs_give_the_median_of_their_medians():
    runs = [run_of(stock=[4.0] * 3, mpipc_shm=[each] * 3) for each in (1.0, 2.0, 40.0)]
    assert figures(runs)["with_lock"]["mpipc-shm"].seconds == 2.0
    assert figures(runs)["with_lock"]["mpipc-shm"].ratio == 2.0


@pytest.mark.parametrize(
    ("ratio", "seconds", "goal", "verdict"),
    [
        (3.0, 1.0, Goal(ratio=2), MET),
        (1.5, 1.0, Goal(ratio=2), MISSED),
        (0.5, 1.0, Goal(ratio=2), BELOW),
        (0.5, 1.0, None, BELOW),
        (0.97, 1.0, Goal(ratio=1), MET),
        (0.97, 1.0, Goal(ratio=2), MISSED),
        (9.0, 3.0, Goal(seconds=2), MISSED),
        (None, 1.0, Goal(seconds=2), MET),
        (9.0, 1.0, Goal(seconds=2, p99=5), MISSED),
        (None, 1.0, Goal(ratio=2), ""),
    ],
)
def test_goals_are_judged(ratio, seconds, goal, verdict):
    found = Figure(seconds, 0.05, 6.0, ratio, ratio_spread=0.05)
    assert found.judge(goal) == verdict


@pytest.mark.parametrize(
    ("samples", "slower"),
    [([1.0] * 3, False), ([1.05] * 3, False), ([1.3] * 3, True), ([0.5, 1.3, 4.0], False)],
)
def test_what_got_slower_is_told_from_noise(samples, slower):
    old, new = (run_of(stock=[2.0] * 3, mpipc_shm=each) for each in ([1.0] * 3, samples))
    (change,) = changes(old, new, SCENARIOS)
    assert change.slower is slower
    assert change.factor == pytest.approx(1 / sorted(samples)[1])


@DRAWS
def test_tables_have_every_side(tmp_path):
    run = run_of(stock=[2e-7] * 3, mpipc_shm=[1e-7] * 3, billiard=[4e-7] * 3)
    lines = "\n".join(markdown([run], SCENARIOS))
    assert "| with Lock | 200 ns | 100 ns | 2.00x ±0% | 2.1x | **missed** |" in lines
    assert "billiard 0.50x" in lines
    (row,) = rows([run], SCENARIOS)
    assert row.verdict == MISSED
    assert len(missing([run], SCENARIOS)) == len(SCENARIOS) - 1
    assert draw([], SCENARIOS, tmp_path / "none") == []
    files = draw([run], SCENARIOS, tmp_path / "some")
    assert [file.name for file in files] == ["some.svg", "some.png"]
    assert all(file.stat().st_size for file in files)


def test_records_are_read_as_written(tmp_path):
    run = run_of(stock=[2.0], mpipc_shm=[1.0])
    run.save(tmp_path / "run.json")
    assert Run.load(tmp_path / "run.json") == run
    for text in ("{}", "[]", "nonsense", '{"results": [{}]}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.json"):
            Run.load(tmp_path / "bad.json")


# The command


@DRAWS
def test_the_command_measures_and_writes(tmp_path, capsys):
    file = tmp_path / "run.json"
    command = ["bench", "--quick", "--sides", "stock,mpipc-shm", "--json", str(file), "with_lock"]
    assert main(command) == 0
    assert "with_lock" in capsys.readouterr().out
    run = Run.load(file)
    (result,) = run.results
    assert all(len(series.samples) == 3 for series in result.sides.values())
    assert run.machine["cores"] == len(os.sched_getaffinity(0))
    assert file.with_suffix(".svg").exists() and file.with_suffix(".png").exists()


def test_the_command_compares(tmp_path, capsys):
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    run_of(stock=[2.0] * 3, mpipc_shm=[1.0] * 3).save(old)
    run_of(stock=[2.0] * 3, mpipc_shm=[1.5] * 3).save(new)
    assert main(["bench", "--compare", str(old), str(old)]) == 0
    assert main(["bench", "--compare", str(old), str(new)]) == 1
    assert "with_lock, mpipc-shm: 0.67 times as fast" in capsys.readouterr().out
    assert main(["bench", "--compare", str(old), str(new), "--tolerate", "50"]) == 0


@DRAWS
def test_the_command_shows_runs_together(tmp_path, capsys):
    run = tmp_path / "run.json"
    run_of(stock=[2.0] * 3, mpipc_shm=[4.0] * 3).save(run)
    assert main(["bench", "--table", str(run), str(run), "--plot", str(tmp_path / "plot")]) == 0
    assert "1 are slower than stock: a bug: with_lock" in capsys.readouterr().out
    assert (tmp_path / "plot.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["no_such"], "no_such"),
        (["with_lock", "--sides", "no_such"], "no_such"),
        (["with_lock", "--json", "/no_such/file"], "/no_such"),
        (["--table", "/no_such.json"], "/no_such.json"),
    ],
)
def test_the_command_names_what_is_wrong(arguments, named, capsys):
    assert main(["bench", *arguments]) == 2
    assert named in capsys.readouterr().err


def test_the_command_lists(capsys):
    assert main(["bench", "--list", "queue_*"]) == 0
    listed = capsys.readouterr().out.split("\n")
    assert listed[0].split() == ["queue_int", "35x"]
    assert not any(line.startswith("pipe") for line in listed)


def test_nobody_pays_for_it_who_does_not_measure():
    code = "import sys, mpipc; mpipc.get_context('shm').Queue(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not any(name.startswith("mpipc.bench") for name in done.stdout.split())


# Instruction counts


@pytest.fixture
def instructions():
    path = Path(__file__).parents[2] / "benchmarks" / "instructions.py"
    spec = importlib.util.spec_from_file_location("instructions", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DUMP = """\
ob=(1) /usr/bin/python3
fn=(1) loop
12 100
cob=(2) /somewhere/mpipc/_core.cpython-311-x86_64-linux-gnu.so
cfn=(2) put
calls=1 7
12 5000
+1 50

ob=(2)
fn=(2)
7 4000
* 1
cob=(1)
cfn=(1)
calls=1 12
+3 999

totals: 4151
"""


def test_instructions_are_read_from_a_dump(instructions):
    assert instructions.read(DUMP) == {"all": 4151, "ours": 4001}


def test_growth_of_instructions_is_found(instructions, capsys):
    before = {"one": {"all": 1000.0, "ours": 100.0}, "other": {"all": 1000.0, "ours": 0.0}}
    now = {
        "one": {"all": 1100.0, "ours": 102.0},
        "other": {"all": 900.0, "ours": 0.0},
        "new": {"all": 1.0, "ours": 1.0},
    }
    assert instructions.compare(before, now, ("all", "ours"), 0.03) == ["one (all)"]
    assert instructions.compare(before, now, ("ours",), 0.03) == []
    assert "not recorded yet" in capsys.readouterr().out


def test_without_valgrind_nothing_is_claimed(instructions, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["instructions.py"])
    monkeypatch.setattr(instructions.shutil, "which", lambda name: None)
    assert instructions.main() == 2
    assert "apt install valgrind" in capsys.readouterr().err


def test_the_record_has_every_path(instructions):
    for record in instructions.RECORD.parent.glob("instructions-*.json"):
        recorded = json.loads(record.read_text())["instructions"]
        assert recorded.keys() == instructions.PATHS.keys() - {instructions.LOOP}
