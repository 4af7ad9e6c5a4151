# Everything runs from .venv in this folder. Without make, each target is the line that stands under it.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test lint bench bench-setup clean

demo: setup ## events → features → training → release → decisions → audit, and what it did
	$(BIN)/penstock demo $(ARGS)

test: setup ## every test; those that need something absent skip and say what to install
	$(BIN)/pytest $(ARGS)

lint: setup ## formatting, lint rules, strict types
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

bench: setup ## one benchmark: make bench NAME=simulator
	$(BIN)/python -m benchmarks $(NAME) --json

setup: .venv/.ready

.venv/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "penstock needs Python 3.11 or newer; got " + sys.version.split()[0] + "; say make PYTHON=python3.12")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { rm -rf .venv && $(PYTHON) -m venv .venv; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv penstock-data .pytest_cache .mypy_cache .ruff_cache .hypothesis
