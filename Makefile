# make run: the real service with a sandbox provider, from a bare machine with Python >= 3.11 and make.
# make test: everything the tests need, then all tests. What only reads the OpenAPI document has a venv of its own.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TOOLS := .venv-tools
BENCH := .venv-bench
BENCH_NAME ?= latest
FLAME_NAME ?= after
# Tests wait more than they compute, so that four at once suit two processors as well.
PYTEST_ARGS ?= -n $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 4 ? 4 : n)))

.PHONY: run install test faults sabotage bench bench-quick bench-growth bench-capacity bench-flame check format lock sbom audit clean

run: $(VENV)/installed
	@BROKER_ENVIRONMENT=development exec $(BIN)/broker serve --demo

install: $(VENV)/installed

test: $(VENV)/installed-dev $(TOOLS)/installed
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# Processes killed and stopped, PostgreSQL too, for minutes: prints a table of what was lost. `make test` has a short form.
faults: $(VENV)/installed-dev
	$(BIN)/python -m tests.faults $(FAULTS_ARGS)

# Whether the above would notice: for each invariant a build that is broken in one place, run until the invariant finds it.
sabotage: $(VENV)/installed-dev
	$(BIN)/python -m tests.faults.sabotage $(SABOTAGE_ARGS)

# Whether 10 thousand grants and a million cost the same, and who waits for migrations: bench/results/growth.md, in some minutes.
bench-growth: $(VENV)/installed-dev
	$(BIN)/python -m bench.growth
	$(BIN)/python -m bench.migrating

# What 10 and 100 million grants need, by simulation, with one point of it measured: the tables of docs/capacity.md, in some minutes.
bench-capacity: $(VENV)/installed-dev
	@$(BIN)/python -m bench.capacity --check
	@$(BIN)/python -m bench.capacity --into docs/capacity.md

# What the service costs, against bare servers beside it: some twenty-five minutes, into bench/results; docs/performance.md explains it.
bench: $(BENCH)/installed
	$(BENCH)/bin/python -m bench --keep $(BENCH_NAME)

# The same in fewer and shorter rounds, as a table on the terminal.
bench-quick: $(VENV)/installed-dev
	@$(BIN)/python -m bench --quick

# Flame graphs, into docs/performance. py-spy has to be allowed to look into other processes.
bench-flame: $(BENCH)/installed
	$(BENCH)/bin/python -m bench.flame $(FLAME_NAME)

# Format, lint, types, the import contracts and the supply chain; the tests are `make test`.
check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m supply_chain check

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The locks hold hashes and no index address, so they install from any mirror.
lock: $(VENV)/installed-dev
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --no-annotate pyproject.toml requirements-build.in --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --extra dev pyproject.toml --constraint requirements.lock --output-file requirements-dev.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --no-annotate requirements-tools.in --output-file requirements-tools.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-header --no-annotate --extra bench pyproject.toml requirements-build.in --constraint requirements.lock \
		--output-file requirements-bench.lock

# What the service is made of, by requirements.lock: sbom.json, in CycloneDX's format.
sbom: $(VENV)/installed-dev
	$(BIN)/python -m supply_chain sbom

# Asks for known vulnerabilities of what is locked. Needs a network that leads to them, and says so where there is none.
audit: $(VENV)/installed-dev
	$(BIN)/python -m supply_chain audit

clean:
	rm -rf $(VENV) $(TOOLS) $(BENCH) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed, this is " + sys.version)'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/installed: requirements.lock pyproject.toml | $(VENV)/bin/python
	@echo "Installing the service into $(VENV) ..."
	@$(PIP) install --require-hashes --no-deps --requirement requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock $(VENV)/installed
	@echo "Installing what the tests need into $(VENV) ..."
	@$(PIP) install --require-hashes --no-deps --requirement requirements-dev.lock
	@touch $@

$(TOOLS)/installed: requirements-tools.lock | $(VENV)/bin/python
	@echo "Installing what the OpenAPI document is tested with into $(TOOLS) ..."
	@$(PYTHON) -m venv $(TOOLS) || { rm -rf $(TOOLS); exit 1; }
	@$(TOOLS)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps --requirement $<
	@touch $@

$(BENCH)/installed: requirements-bench.lock pyproject.toml | $(VENV)/bin/python
	@echo "Installing the service, and what draws its figures, into $(BENCH) ..."
	@$(PYTHON) -m venv $(BENCH) || { rm -rf $(BENCH); exit 1; }
	@$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes --no-deps --requirement $<
	@$(BENCH)/bin/python -m pip --disable-pip-version-check --quiet install --no-deps --no-build-isolation --editable .
	@touch $@
