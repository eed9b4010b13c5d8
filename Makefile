# Two commands on a fresh machine: `make run` and `make test`. tests/setup makes .venv, where everything lives,
# and installs programs where it may. `make bench` measures; it needs root.
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.bench
export RAY_AUTH_MODE ?= disabled
export RAY_USAGE_STATS_ENABLED ?= 0
export PATH := $(PATH):/usr/sbin
export DRAGONFLY_DEMO_STATE ?= $(CURDIR)/.demo

.PHONY: setup run stop test test-bare test-slow endurance lint docs lock sbom build-check vendor bench bench-full bench-zones bench-manager simulate clean

$(READY): pyproject.toml tests/setup
	@PYTHON="$(PYTHON)" tests/setup run
	@touch $@

$(STAMP): pyproject.toml tests/setup
	@PYTHON="$(PYTHON)" tests/setup test
	@touch $@ $(READY)

# What is missing in the end fails its own lines of the table only.
$(BENCH_STAMP): pyproject.toml tests/setup
	@PYTHON="$(PYTHON)" tests/setup bench
	@touch $@ $(STAMP) $(READY)

# Once more, as after something was installed that was missing.
setup:
	@rm -f $(STAMP)
	@$(MAKE) --no-print-directory $(STAMP)

# KEEP=1: and leave everything running, until `make stop`.
run: $(READY)
	@$(BIN)/python -m examples.demo

stop:
	@if test -x $(BIN)/python; then $(BIN)/python -m examples.demo stop; fi

# Tests without a Ray cluster run several at a time. ARGS="tests/unit/test_picker.py": these only. All suites run,
# and then it fails if one of them did.
test: $(STAMP)
ifeq ($(strip $(ARGS)),)
	@failed=0; \
	$(BIN)/python -m pytest --numprocesses 3 tests/manager tests/unit tests/conformance tests/console || failed=1; \
	$(BIN)/python -m pytest tests/cluster tests/testbed || failed=1; \
	exit $$failed
else
	$(BIN)/python -m pytest $(ARGS)
endif

# Both commands of the README in namespaces where nothing is installed or set up. Needs root.
test-bare: $(STAMP)
	$(BIN)/python -m pytest tests/bare

# Real parts that are heavy: what is marked `slow`, anywhere below tests.
test-slow: $(STAMP)
	$(BIN)/python -m pytest --slow $(or $(ARGS),tests)

# Cluster, testbed and fault suites ten times, everything twice beside two busy loops; goes on where it was
# interrupted. ARGS="--help" says more.
endurance: $(STAMP)
	$(BIN)/python -m tests.endurance $(ARGS)

# ARGS="--quick" leaves out what takes longer than some minutes.
simulate: $(READY)
	$(BIN)/python -m tests.benchmarks.simulate $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

# The documentation, into build/site. Needs no network; whatever does not lead anywhere is an error.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Exact versions with hashes of everything that all extras need; no index is named in it.
lock: $(STAMP)
	$(BIN)/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet --output-file requirements.lock

# A bill of materials of that and of the console's libraries, as CycloneDX.
sbom: $(STAMP)
	$(BIN)/python -m tests.sbom build/sbom.cdx.json

build-check: $(STAMP)
	$(BIN)/python -m tests.build_check

# The console's libraries, from the exact versions in serve/console/vendor/package.json.
CONSOLE := serve/console/vendor
vendor:
	mkdir -p $(VENV)/vendor && cp $(CONSOLE)/package.json $(VENV)/vendor
	npm install --silent --no-audit --no-fund --no-package-lock --prefix $(VENV)/vendor
	node $(CONSOLE)/vendor.mjs $(VENV)/vendor/node_modules

bench: $(BENCH_STAMP)
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-full: $(BENCH_STAMP)
	$(BIN)/python -m tests.benchmarks --full $(ARGS)

# Two and four zones that a thin link joins, on real peers without Ray: some minutes. Needs root.
bench-zones: $(BENCH_STAMP)
	$(BIN)/python -m tests.benchmarks.zones $(ARGS)

# The manager's lists on databases with 100,000 jobs; the second one is PostgreSQL's.
bench-manager: $(STAMP)
	$(BIN)/python -m tests.benchmarks.manager_lists $(ARGS)

clean:
	rm -rf $(VENV)
