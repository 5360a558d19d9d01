VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
IMAGES ?=

.PHONY: setup demo test check bench

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: setup  ## Restore a photograph with the shipped weights and show the gain
	$(BIN)/imagerestore demo

test: setup  ## Run the tests
	$(BIN)/python -m pytest

check: setup  ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup  ## Every benchmark in short, under 15 minutes on two cores; writes docs/bench.md. IMAGES=DIR: your photographs
	$(BIN)/python -m benchmarks.short $(if $(IMAGES),--images "$(IMAGES)")
