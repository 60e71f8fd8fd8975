# `make demo` and `make test` are enough on a fresh machine; the other targets are for developers.
# Another interpreter or environment: make test PYTHON=/path/to/python3.12 VENV=.venv-3.12

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

RUN := $(VENV)/bin/python
CYTHON_SOURCES := $(wildcard mpipc/*.pyx mpipc/*.pxd mpipc/_native/*.p?? mpipc/_native/*.h)
BUILT_FROM := pyproject.toml setup.py $(CYTHON_SOURCES)

# How CPython's tests are run on mpipc-shm and compared with stock; the results go to RESULTS.
COMPAT := $(RUN) compat_tests --against-stock $(ARGS)
RESULTS ?= compat_tests/results

# Cores for tests, apart from the one that is used: with kill points, with calls that can be made to
# fail, under a scheduler, watched by a sanitizer.
DEATH := build/death
FAULTS := build/faults
INTERLEAVINGS := build/interleavings
SANITIZER ?= address,undefined
comma := ,
SANITIZED := build/sanitize-$(subst $(comma),-,$(SANITIZER))

# The sanitizers must be there before the interpreter, which is not built for them.
# detect_leaks=0: what CPython keeps until its end looks like leaks. PYTHONMALLOC: its own allocator
# would hide an overrun from it.
WATCHED = LD_PRELOAD=$$($(CC) -print-file-name=libasan.so) PYTHONMALLOC=malloc \
  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 PYTHONPATH=$(abspath $(SANITIZED))/lib
WATCHED_TESTS = $(wildcard tests/unit/test_core_*.py) $(foreach part,\
  queue joinable_queue pipe locks condition event barrier sharedctypes readiness signals,\
  tests/conformance/test_$(part).py)

# Runs of bench that docs/performance.md is made from.
RUNS ?= $(wildcard benchmarks/results/performance-*.json)
MECHANISMS_JSON := benchmarks/results/mechanisms.json

.PHONY: help demo test death soak faults fuzz interleavings sanitize sanitize-address,undefined
.PHONY: sanitize-thread compat compat-all compat-table lint check clean
.PHONY: bench performance mechanisms-bench mechanisms-table instructions

help:
	@echo 'make demo   build into $(VENV), run five programs with stock multiprocessing and mpipc'
	@echo 'make test   build into $(VENV), run the tests          (ARGS=... goes to pytest)'
	@echo 'make compat run tests of CPython, compare with stock; compat-all runs them all'
	@echo 'make death  kill a process at each step of the core   (ARGS=... goes to the script)'
	@echo 'make soak   kill processes at random, keep a ledger   (ARGS=... goes to the scripts)'
	@echo 'make faults make each system call of the core fail    (ARGS=... goes to the script)'
	@echo 'make fuzz   overwrite shared memory at random          (ARGS=... goes to the script)'
	@echo 'make interleavings   run the algorithms in every order of steps (ARGS=--short)'
	@echo 'make sanitize        tests under AddressSanitizer   (SANITIZER=thread: ThreadSanitizer)'
	@echo 'make lint   ruff, cython-lint, mypy and stubtest'
	@echo 'make bench  measure against stock and other packages   (ARGS=... goes to mpipc bench)'
	@echo 'make instructions count those of the hot paths: have they grown?'
	@echo 'make clean  remove what was built'

demo: $(VENV)/.with-cli
	$(RUN) -m mpipc demo $(ARGS)

test: $(VENV)/.with-cli,test
	$(RUN) -m pytest -n 2 tests $(ARGS)

death: $(VENV)/.with-dev
	MPIPC_KILL_POINTS=1 $(RUN) setup.py --quiet build --build-base $(DEATH) --build-lib $(DEATH)/lib
	PYTHONPATH=$(DEATH)/lib $(RUN) tests/death/kill_points.py $(ARGS)

soak: $(VENV)/.with-test
	$(RUN) tests/death/soak.py $(ARGS)
	$(RUN) tests/death/soak_pool.py $(ARGS)

faults: $(VENV)/.with-dev
	MPIPC_FAULTS=1 $(RUN) setup.py --quiet build --build-base $(FAULTS) --build-lib $(FAULTS)/lib
	PYTHONPATH=$(abspath $(FAULTS))/lib $(RUN) tests/faults/system_calls.py $(ARGS)

fuzz: $(VENV)/.with-test
	$(RUN) tests/faults/fuzz.py $(ARGS)

interleavings: $(VENV)/.with-dev
	MPIPC_INTERLEAVE=1 $(RUN) setup.py --quiet build \
	  --build-base $(INTERLEAVINGS) --build-lib $(INTERLEAVINGS)/lib
	PYTHONPATH=$(INTERLEAVINGS)/lib $(RUN) tests/interleavings/run.py $(ARGS)

sanitize: sanitize-$(SANITIZER)

# Not `python -m pytest`, which would find the package of this folder first.
sanitize-address,undefined: $(VENV)/.with-dev
	MPIPC_SANITIZER=$(SANITIZER) $(RUN) setup.py --quiet build \
	  --build-base $(SANITIZED) --build-lib $(SANITIZED)/lib
	$(WATCHED) $(VENV)/bin/pytest -n 2 --start-method fork $(or $(ARGS),$(WATCHED_TESTS))

# The sanitizer must be there before the interpreter, at addresses that it knows.
sanitize-thread: $(VENV)/.with-dev
	MPIPC_STRESS=1 $(RUN) setup.py --quiet build \
	  --build-base $(SANITIZED) --build-lib $(SANITIZED)/lib
	PYTHONPATH=$(SANITIZED)/lib TSAN_OPTIONS=halt_on_error=1 \
	LD_PRELOAD=$$($(CC) -print-file-name=libtsan.so) \
	  $$(setarch -R true 2>/dev/null && echo setarch -R) $(RUN) tests/interleavings/stress.py $(ARGS)

# The interpreter must have CPython's tests; tools/python_with_tests looks for one.
compat: $(VENV)/.with-compat
	$(COMPAT) --start-method fork
	$(COMPAT) --start-method spawn --slice
	$(COMPAT) --start-method forkserver --slice

compat-all: $(VENV)/.with-compat
	for method in fork spawn forkserver; do \
	  $(COMPAT) --start-method $$method --save $(RESULTS) || failed=1; \
	done; exit $${failed:-0}

compat-table: | $(RUN)
	$(RUN) compat_tests/table.py $(RESULTS)

# cython-lint looks for pycodestyle on the PATH.
lint: export PATH := $(abspath $(VENV)/bin):$(PATH)
lint: $(VENV)/.with-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	cython-lint mpipc
	$(RUN) -m mypy
	$(RUN) -m mypy.stubtest mpipc._core mpipc._kernel

bench: $(VENV)/.with-cli
	$(RUN) -m mpipc bench $(ARGS)

# docs/performance.md and its plot, from the RUNS together.
performance: $(VENV)/.with-cli
	$(RUN) benchmarks/performance.py $(RUNS)

# Every mechanism side by side; then docs/mechanisms_figures.md and its plot.
mechanisms-bench: $(VENV)/.with-cli
	$(RUN) -m mpipc bench --sides stock,mechanisms --json $(MECHANISMS_JSON) --plot build/mechanisms \
	  queue_100_b queue_1_kib queue_64_kib queue_1_mib 'pipe_round_trip_of_*' \
	  lock_acquire_and_release value_increment_locked $(ARGS)

mechanisms-table: $(VENV)/.with-cli
	$(RUN) benchmarks/mechanisms_table.py

# Needs valgrind; ARGS=--record writes the record that it compares with.
instructions: $(VENV)/.with-cli
	$(RUN) benchmarks/instructions.py $(ARGS)

# Names what is missing before pip buries it; a missing interpreter is reported here.
check:
	@command -v '$(PYTHON)' >/dev/null || { \
	  echo 'missing: $(PYTHON), Python 3.10 or newer (Debian, Ubuntu: apt install python3 python3-venv python3-dev; Fedora: dnf install python3 python3-devel)' >&2; \
	  exit 1; }
	@'$(PYTHON)' tools/check_prerequisites.py

$(RUN): | check
	$(PYTHON) -m venv $(VENV)

# One stamp for each set of extras. The install is editable: only compiled sources make it stale.
$(VENV)/.with-%: $(BUILT_FROM) | $(RUN)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch '$@'

clean:
	rm -rf $(VENV) build dist *.egg-info mpipc/*.so
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
