# Lakegate's commands; `make` alone lists them. Nothing needs installing by hand beyond what
# `.ci/prerequisites` checks for.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo test lint bench bench-line fuzz test-rust test-python test-clients prerequisites test-venv demo-venv

# Where Python environments are made, which Python makes them, and where cargo builds.
VENVS ?= .venv
PYTHON ?= python3
CARGO_TARGET_DIR ?= target
export PYTHON CARGO_TARGET_DIR

# Absolute, so that a test finds its Python whatever folder it runs in.
TEST_PYTHON = $(abspath $(VENVS))/test/bin/python
DEMO_PYTHON = $(abspath $(VENVS))/demo/bin/python

help: ## list these commands
	@echo "make demo    real data from files and a database to pandas and a chart; first time perhaps 15 minutes on 2 cores, then 1"
	@echo "make test    all tests; first time about 40 minutes on 2 cores, then 25"
	@echo "make test-clients  clients in Java, Go and Node.js, which have to be there; first time 5 minutes more, then 2"
	@echo "make lint    formatting, clippy, licences of dependencies, ruff and mypy; first time about 10 minutes"
	@echo "make fuzz    bytes of nobody's making against the server, guided by coverage, 5 minutes a kind of call; needs cargo-fuzz"
	@echo "make bench   the figures of docs/benchmarks.md; about 1 hour once built, and 20 GB of disk"
	@echo "make bench-line  lakegate and its peers over slow lines; about 1 hour once built, LINE=quick tries it in minutes; 5 GB of disk"

prerequisites:
	@.ci/prerequisites

test-venv: prerequisites
	@.ci/venv $(VENVS)/test tests/requirements.txt

demo-venv: prerequisites
	@.ci/venv $(VENVS)/demo python-client/demo/requirements.txt

demo: demo-venv
	@echo "== Building lakegate and the stand-in for SQL Server (first time 10 to 15 minutes on 2 cores, later seconds)"
	@cargo build --locked --profile demo --bin lakegate
	@cargo build --locked --profile demo -p mssql-fixture
	@PYTHONPATH=python-client/src $(DEMO_PYTHON) python-client/demo/demo.py \
	  --lakegate "$(abspath $(CARGO_TARGET_DIR))/demo/lakegate" \
	  --database "$(abspath $(CARGO_TARGET_DIR))/demo/mssql-fixture"

test: test-rust test-python ## everything that is tested

test-rust: test-venv
	@echo "== Rust tests (building them the first time takes 10 to 20 minutes on 2 cores)"
	LAKEGATE_TEST_PYTHON=$(TEST_PYTHON) cargo test --locked --workspace --no-fail-fast

# The server the Python tests start is the one `cargo test` builds.
test-python: test-venv
	@echo "== Python tests (about 5 minutes once the program is built)"
	@cargo test --locked --workspace --quiet --no-run
	LAKEGATE_BIN="$(abspath $(CARGO_TARGET_DIR))/debug/lakegate" \
	MSSQL_FIXTURE="$(abspath $(CARGO_TARGET_DIR))/debug/mssql-fixture" PYTHONPATH=python-client/src \
	  $(TEST_PYTHON) -m pytest -q -c python-client/pyproject.toml --rootdir . python-client/tests tests/clients tests/benches

# Which Flight SQL JDBC drivers are tested, one after the other. 19.0.0 is known too, but not every registry has it.
JDBC_DRIVERS ?= 18.3.0

# Python's clients are tested by test-python.
test-clients: test-venv
	@.ci/prerequisites clients
	@echo "== Clients in Java, Go and Node.js (about 2 minutes once the program is built)"
	@cargo test --locked --workspace --quiet --no-run
	LAKEGATE_BIN="$(abspath $(CARGO_TARGET_DIR))/debug/lakegate" JDBC_DRIVERS="$(JDBC_DRIVERS)" \
	  CLIENTS_FOLDER="$(abspath $(CARGO_TARGET_DIR))/clients" CLIENTS_PYTHON="$(TEST_PYTHON)" \
	  $(TEST_PYTHON) tests/clients/walked.py tests/clients/run

lint: test-venv
	@echo "== Formatting and clippy (first time about 10 minutes on 2 cores)"
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
	@echo "== Dependencies"
	@$(TEST_PYTHON) .ci/dependencies.py
	@echo "== Python"
	$(TEST_PYTHON) -m ruff check --config python-client/pyproject.toml python-client tests benches .ci
	$(TEST_PYTHON) -m ruff format --check --config python-client/pyproject.toml python-client tests benches .ci
	cd python-client && $(TEST_PYTHON) -m mypy

bench: prerequisites
	@echo "== Building lakegate as it is shipped (fully optimised: about 45 minutes on 2 cores the first time)"
	@cargo build --locked --profile dist --bin lakegate
	@cargo build --locked --profile dist -p mssql-fixture
	@.ci/venv $(VENVS)/bench benches/requirements.txt
	@echo "== Measuring (about 1 hour for all; BENCH=load, apply, resync, flight, mssql or mssql.reading for one)"
	@$(abspath $(VENVS))/bench/bin/python benches/run.py --target "$(abspath $(CARGO_TARGET_DIR))/dist" \
	  --folder "$(abspath $(CARGO_TARGET_DIR))/bench-data" $(BENCH)

# LINE=quick: one line, few rows, one run. LINE='--parts small,fair', '--links 10,unshaped', '--only full,wide', '--peers none' and
# '--runs 3' measure that alone, and replace only its figures. Network namespaces need root; without them proxies stand in, and
# it says so.
LINE ?=

bench-line: prerequisites
	@echo "== Building lakegate as it is shipped (fully optimised: about 45 minutes on 2 cores the first time)"
	@cargo build --locked --profile dist --bin lakegate
	@cargo build --locked --profile dist -p mssql-fixture
	@.ci/venv $(VENVS)/bench benches/requirements.txt
	@echo "== Measuring (about 1 hour for all; LINE=quick or LINE='--parts small' in minutes; LINE='--scale 10' for ten times the data)"
	@PYTHONPATH=benches $(abspath $(VENVS))/bench/bin/python benches/line/bench.py \
	  --target "$(abspath $(CARGO_TARGET_DIR))/dist" --folder "$(abspath $(CARGO_TARGET_DIR))/bench-data" \
	  --docs docs/benchmarks.md $(patsubst quick,--quick,$(LINE))

# What is fuzzed, one after the other, and for how long each; FUZZ=sql FUZZ_SECONDS=0 goes on with one until it breaks.
FUZZ ?= command ticket action parameters ingest authorization sql
FUZZ_SECONDS ?= 300

# The short run without coverage is among the integration tests (tests/it/hostile). Built with checks of overflow, and without
# a sanitizer, as lakegate itself has no unsafe code.
fuzz: prerequisites
	@command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install --locked cargo-fuzz" >&2; exit 1; }
	@cargo +nightly --version >/dev/null 2>&1 || { echo "cargo-fuzz needs a nightly toolchain: rustup toolchain install nightly" >&2; exit 1; }
	@for target in $(FUZZ); do \
	  echo "== Fuzzing $$target for $(FUZZ_SECONDS) s (building it the first time takes 15 minutes on 2 cores)"; \
	  cargo +nightly fuzz run --fuzz-dir tests/fuzz --sanitizer none --dev \
	    --target-dir "$(abspath $(CARGO_TARGET_DIR))/fuzz" $$target -- -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=4096 || exit 1; \
	done
