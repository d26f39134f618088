# Everything that a person or CI does with this repository. Needs python3.11 or later with pip and venv, and make.
#
#   make demo       set up what running needs, run the first experiment, say where its figures are
#   make test       set up everything and run the tests (those marked slow excepted)
#   make check      what CI does: format, lint, types, import contracts, tests, digests
#
# PYTHON=python3.13 make test chooses the interpreter of a new .venv; WORKERS=1 the number of test processes.

PYTHON  ?= python3
WORKERS ?= auto
VENV    := .venv
BIN     := $(VENV)/bin
PIP     := $(BIN)/python -m pip --disable-pip-version-check
RUN     := $(BIN)/python -m pytest

NOTEBOOKS  := $(wildcard notebooks/*.ipynb)
BENCHMARKS := $(wildcard benchmarks)

.PHONY: setup setup-run test test-long test-digest test-lowest check format format-check lint types contracts demo bench \
        notebooks lock clean

# ---------------------------------------------------------------- set-up; a stamp makes the second call free

setup: $(VENV)/.stamp-dev
setup-run: $(VENV)/.stamp-run

$(VENV)/.stamp-venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "simnet needs Python 3.11 or later; say PYTHON=python3.11 make ...")'
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# What running needs, and the project itself in place. The lock holds the build backend, so nothing else is fetched.
$(VENV)/.stamp-run: requirements.txt pyproject.toml | $(VENV)/.stamp-venv
	$(PIP) install --quiet --require-hashes --requirement requirements.txt
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# What tests and checks need besides. requirements-dev.txt holds all of requirements.txt at the same versions.
$(VENV)/.stamp-dev: requirements-dev.txt $(VENV)/.stamp-run
	$(PIP) install --quiet --require-hashes --requirement requirements-dev.txt
	@touch $@

# ---------------------------------------------------------------- checks, one target each, so that CI can name the one that failed

check: format-check lint types contracts test test-digest

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

format-check: setup
	$(BIN)/ruff format --check .

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

contracts: setup
	$(BIN)/lint-imports

# ---------------------------------------------------------------- tests

test: setup
	$(RUN) -n $(WORKERS) -m "not slow" --nbmake tests $(NOTEBOOKS)

test-long: setup
	$(RUN) -n $(WORKERS) tests

# Digests once more as a plain CPU would compute them: every SIMD feature that numpy found is switched off.
# pytest's exit code 5 says that no test bears the mark yet.
test-digest: setup
	NPY_DISABLE_CPU_FEATURES="$$($(BIN)/python -c 'import numpy; print(*numpy.show_config(mode="dicts")["SIMD Extensions"].get("found", []))')" \
	    $(RUN) -m digest tests || test $$? -eq 5

# The lower bounds of pyproject.toml, exactly, in an environment of their own; needs uv, which resolves them.
test-lowest:
	$(PYTHON) -m venv --clear build/lowest
	build/lowest/bin/python -m pip install --quiet uv
	build/lowest/bin/uv pip install --quiet --python build/lowest/bin/python --resolution lowest-direct --editable '.[dev]'
	build/lowest/bin/python -m pytest -n $(WORKERS) -m "not slow" tests

notebooks: setup
	$(RUN) -n $(WORKERS) --nbmake $(if $(NOTEBOOKS),$(NOTEBOOKS),--collect-only -q tests/test_house.py)

bench: setup
	$(if $(BENCHMARKS),$(RUN) --benchmark-enable --benchmark-only $(BENCHMARKS),@echo "no benchmarks yet")

# ---------------------------------------------------------------- use

demo: setup-run
	$(BIN)/simnet run experiments/nginx-demo.yaml
	@echo; echo "The figures of the first experiment:"; ls -1 results/nginx-demo/figures/* 2>/dev/null \
	    || echo "  none were made; see results/nginx-demo/"

# ---------------------------------------------------------------- upkeep

# Both locks anew, with hashes, for every Python and system that pyproject.toml allows. uv resolves; pip installs.
# uv.lock stays in build/: it would name the place that the packages came from.
lock:
	mkdir -p build/lock
	test -x build/lock/venv/bin/uv || { $(PYTHON) -m venv build/lock/venv && build/lock/venv/bin/python -m pip install --quiet uv; }
	cp -r pyproject.toml README.md LICENSE simnet build/lock/
	cd build/lock && venv/bin/uv lock --quiet --upgrade
	cd build/lock && venv/bin/uv export --quiet --locked --no-emit-project --no-header --no-annotate \
	    --extra build --output-file ../../requirements.txt
	cd build/lock && venv/bin/uv export --quiet --locked --no-emit-project --no-header --no-annotate \
	    --extra build --extra dev --output-file ../../requirements-dev.txt
	! grep -nE '://|^--' requirements.txt requirements-dev.txt

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .benchmarks
	find simnet tests -type d -name __pycache__ -prune -exec rm -rf {} +
