# Everything a contributor runs, from nothing but Python >= 3.11, git and make.
# `make` alone lists the targets.

PYTHON ?= python3
VENV ?= .venv
# Parallel test processes; each gets one thread, so together they use this many cores.
WORKERS ?= 2
PYTEST_FLAGS ?= -q
# More arguments for pip, such as another package index.
PIP_FLAGS ?=

BIN := $(VENV)/bin
# The constraints are part of every install: without them pip takes a torch of several gigabytes.
PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	-c constraints.txt $(PIP_FLAGS)
# Tests of a file mostly stay in one process, which makes what they share once.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --benchmark-disable
# What a faster double of a model must pass as well; make test-all puts every test to it.
FOUNDATION := $(addprefix tests/test_,$(addsuffix .py,references captum methods fields explain))
DEMO := demo
DEMO_METHODS := integrated expected weighted ig2
GALLERY := build/gallery

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo gallery examples docs test test-optimized test-all lint types bench clean

help:  ## list the targets
	@awk -F ':[^#]*## ' '/^[a-z-]+:.*## / {printf "  make %-16s%s\n", $$1, $$2}' Makefile

demo: $(VENV)/.demo-installed  ## explain a photograph with four methods; writes demo/
	$(BIN)/integrand explain sample:chelsea --model efficientnet-lite0 \
		$(addprefix --method ,$(DEMO_METHODS)) --out $(DEMO)
	@test -s $(DEMO)/index.html
	@echo "Open $(DEMO)/index.html in a browser."

gallery: examples  ## one photograph, every method, and the examples; writes docs/gallery.md
	OMP_NUM_THREADS=1 $(BIN)/integrand explain sample:chelsea --method all --save --out $(GALLERY)
	$(BIN)/python scripts/docs.py --gallery $(GALLERY)
	@echo "Open $(GALLERY)/index.html in a browser."

examples: $(VENV)/.test-installed  ## run examples/; writes their pictures and docs/gallery.md
	OMP_NUM_THREADS=1 $(BIN)/python scripts/docs.py --examples

docs: $(VENV)/.demo-installed  ## count costs again, and write the tables of methods in docs/
	$(BIN)/python scripts/measured_costs.py
	$(BIN)/python scripts/docs.py

test: lint types test-optimized  ## lint, types, and the tests that are not marked slow
	$(PYTEST) -m "not slow" $(PYTEST_FLAGS)

test-optimized: $(VENV)/.test-installed  ## the foundation's tests with optimize=True throughout
	$(PYTEST) -m "not slow" --optimize $(FOUNDATION) $(PYTEST_FLAGS)

test-all: lint types  ## lint, types, and every test
	$(PYTEST) $(PYTEST_FLAGS)
	$(PYTEST) --optimize $(PYTEST_FLAGS)

lint: $(VENV)/.test-installed  ## ruff: the rules and the format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test-installed  ## mypy --strict on src/integrand
	$(BIN)/mypy

bench: $(VENV)/.test-installed  ## print the benchmark tables
	$(BIN)/python -m benchmarks

clean:  ## remove the demo, the builds and the caches; the virtual environment stays
	rm -rf $(DEMO) build dist .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks examples scripts -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python >= 3.11 is needed; say which with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e '.[demo]'
	@touch $@

# The test extra contains the demo extra.
$(VENV)/.test-installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e '.[test]'
	@touch $(VENV)/.demo-installed $@
