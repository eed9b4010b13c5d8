# Two commands on a fresh machine: `make run` and `make test`. Everything lives in .venv. `make bench`
# measures; it needs root, and what tests/benchmarks/install can install.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export RAY_AUTH_MODE ?= disabled
export RAY_USAGE_STATS_ENABLED ?= 0
export PATH := $(PATH):/usr/sbin
export DRAGONFLY_DEMO_STATE ?= $(CURDIR)/.demo

.PHONY: run stop test lint build-check vendor bench bench-full bench-manager bench-tools simulate clean

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group dev
	# An Azure server for one of the test suites; without npm that one is skipped.
	if command -v npm >/dev/null; then npm install --silent --no-audit --no-fund --prefix $(VENV)/azurite azurite@3; fi
	touch $(STAMP)

# KEEP=1: and leave everything running, until `make stop`.
run: $(STAMP)
	@$(BIN)/python -m dragonfly_ray.demo

stop:
	@if test -x $(BIN)/python; then $(BIN)/python -m dragonfly_ray.demo stop; fi

# Tests without a Ray cluster run several at a time. ARGS="tests/unit/test_picker.py": these only.
test: $(STAMP)
ifeq ($(strip $(ARGS)),)
	$(BIN)/python -m pytest --numprocesses 3 tests/manager tests/unit tests/conformance tests/console
	$(BIN)/python -m pytest tests/cluster tests/testbed
else
	$(BIN)/python -m pytest $(ARGS)
endif

# ARGS="--quick" leaves out what takes longer than some minutes.
simulate: $(STAMP)
	$(BIN)/python -m tests.benchmarks.simulate $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

build-check: $(STAMP)
	$(BIN)/python tests/build_check.py

# The console's libraries, from the exact versions in serve/console/vendor/package.json.
CONSOLE := serve/console/vendor
vendor:
	mkdir -p $(VENV)/vendor && cp $(CONSOLE)/package.json $(VENV)/vendor
	npm install --silent --no-audit --no-fund --no-package-lock --prefix $(VENV)/vendor
	node $(CONSOLE)/vendor.mjs $(VENV)/vendor/node_modules

bench: bench-tools
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-full: bench-tools
	$(BIN)/python -m tests.benchmarks --full $(ARGS)

# The manager's lists on databases with 100,000 jobs; the second one is PostgreSQL's.
bench-manager: $(STAMP)
	$(BIN)/python -m tests.benchmarks.manager_lists $(ARGS)

# As far as it can: what is missing in the end fails its own lines of the table only.
bench-tools: $(STAMP)
	tests/benchmarks/install
	$(BIN)/python -m pip install --quiet --group bench || echo "no libtorrent: its lines will be missing"

clean:
	rm -rf $(VENV)
