# Everything runs from .venv in this folder. Without make, once:
#   python3 -m venv .venv && .venv/bin/pip install -e '.[dev]'
# and then the one line that stands under each target.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint bench bench-setup setup clean

demo: setup ## events → features → training → release → decisions → audit, and what it did
	$(BIN)/penstock demo $(ARGS)

test: setup ## every test; those that need something absent skip and say what to install
	$(BIN)/pytest $(ARGS)

lint: setup ## formatting, lint rules, strict types
	$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

bench: setup ## one benchmark: make bench NAME=simulator
	$(BIN)/python -m benchmarks $(NAME) --json

bench-setup: setup ## the benchmarks' peers, each in an environment of its own under .bench, and Redis from Debian
	command -v redis-server >/dev/null || $$(test $$(id -u) = 0 || echo sudo) apt-get install -y redis-server
	for file in benchmarks/*/peers/*.txt; do peer=.bench/$$(basename $$file .txt); $(PYTHON) -m venv $$peer && \
	$$peer/bin/pip install --quiet --disable-pip-version-check -r $$file || exit 1; done
	# What it says that it needs is older than any Python that penstock runs on.
	.bench/obp/bin/pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python obp==0.5.7

setup: .venv/.ready ## the environment; the network is used only where pyproject.toml has changed

# The stamp says where the environment was made. One that was moved, broke or was left half-made is made anew.
SOUND := $(shell $(BIN)/python -c 'print(open(".venv/.ready").read().strip())' 2>/dev/null)
ifneq ($(SOUND),$(CURDIR))
.PHONY: .venv/.ready
endif

.venv/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "penstock needs Python 3.11 or newer, and this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12")'
	@test '$(SOUND)' = '$(CURDIR)' || { rm -rf .venv && $(PYTHON) -m venv .venv; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@echo '$(CURDIR)' > $@

clean: ## back to what was cloned, the demo's data included
	rm -rf .venv penstock-data .pytest_cache .mypy_cache .ruff_cache .hypothesis
