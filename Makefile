# Two commands on a fresh machine: `make sweep` runs the main job, `make test` passes the tests.
# Both set up everything they need in .venv first. PYTHON=python3.12 picks another interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: sweep test quick coverage lint clean
.DEFAULT_GOAL := sweep

sweep: .venv/run.stamp  ## three cells on the embedded default, then the report
	$(BIN)/python run.py -m fusion=cross,self,full

# Three processes on two cores: one of them waits, for SLURM or a browser. Compiled files are kept, even
# where the environment says otherwise: the many processes that tests start would compile them anew.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --dist loadgroup

test: .venv/dev.stamp lint  ## lint, types, every test
	$(PYTEST) -n 3 --durations=20

quick: .venv/dev.stamp  ## the tests that are quick
	$(PYTEST) -n 2 -q --quick

coverage: .venv/dev.stamp  ## every test, and what they reach
	$(PYTEST) -n 3 --cov --cov-report=term:skip-covered --cov-fail-under=85

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/run.stamp: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "keyseg needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.11 ..." % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/dev.stamp: pyproject.toml .venv/run.stamp
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

clean:  ## outputs, reports and caches; leaves .venv and the code
	rm -rf outputs reports/out cache mlflow.db mlartifacts .pytest_cache .mypy_cache .ruff_cache
