VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
IMAGES ?=

.PHONY: setup demo test check docs wheel bench soak count

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@

demo: setup  ## Restore a photograph with the shipped weights and show the gain
	$(BIN)/imagerestore demo

test: setup  ## Run the tests, a process a core; those that start many processes: pytest -m slow
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

check: setup  ## Lint, format, types, and calls that are unsafe with files of others
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive restore_env tools_zoo sr_models agents benchmarks examples

docs: setup  ## Build the documentation in site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

wheel:  ## Build the wheel, install it in an empty environment outside the checkout, and run it there
	PYTHON=$(PYTHON) .ci/wheel

count:  ## Source lines, test lines, the largest module, the fullest folder
	@$(PYTHON) -c 'import collections, pathlib, subprocess; \
	files = [pathlib.Path(f) for f in subprocess.check_output(["git", "ls-files", "*.py"], text=True).split()]; \
	lines = {f: len(f.read_text().splitlines()) for f in files if f.exists()}; \
	tests = sum(n for f, n in lines.items() if f.parts[0] == "tests"); \
	source = {f: n for f, n in lines.items() if f.parts[0] not in ("tests", "examples")}; \
	largest = max(source, key=source.get); \
	folders = collections.Counter(f.parent for f in source if f.name != "__init__.py").most_common(1)[0]; \
	print(f"source {sum(source.values())}, tests {tests}, largest module {largest} {source[largest]}, fullest folder {folders[0]} {folders[1]}")'

soak: setup  ## Kills, signals, full disks, long runs, equal bits and mutated files, for half an hour. SECONDS=60: for a minute
	$(BIN)/python -m benchmarks.soak $(if $(SECONDS),--seconds $(SECONDS))

bench: setup  ## Every benchmark in short, under 15 minutes on two cores; writes docs/bench.md. IMAGES=DIR: your photographs
	$(BIN)/python -m benchmarks.short $(if $(IMAGES),--images "$(IMAGES)")
