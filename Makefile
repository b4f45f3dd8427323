# Each target needs nothing but Python 3.11+ with pip, and makes its own .venv once.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
DEVELOPED := .venv/.developed
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help install llm text search test test-faults lint bench scaling ui clean
.DEFAULT_GOAL := help

help:             ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1 /' | awk '{ name = $$1; $$1 = ""; printf "  make %-13s%s\n", name, $$0 }'

install: $(INSTALLED)  ## makes .venv with the engine in it: .venv/bin/nas

llm: $(INSTALLED)      ## adds what proposer=llm needs (docs/llm.md)
	$(PIP) install --quiet --no-compile -c constraints.txt -e '.[llm]'

text: $(INSTALLED)     ## adds what corpus=huggingface and tokenizers need
	$(PIP) install --quiet --no-compile -c constraints.txt -e '.[text]'

search: $(INSTALLED)   ## the main job: a search with the embedded defaults, to its result (OVERRIDES="seed=3 ...")
	$(BIN)/nas search $(OVERRIDES)

ui: $(INSTALLED)       ## the MLflow UI on the results
	$(BIN)/nas ui

test: lint             ## the whole test suite, lint included
	$(BIN)/python -m pytest

test-faults: $(DEVELOPED)  ## a real Ray cluster whose parts are killed; some minutes
	$(BIN)/python -m pytest -n 0 -m faults

lint: $(DEVELOPED)     ## style, types, and the layers of the imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(INSTALLED)    ## what takes how long, the ops beside their recurrences; writes results/bench.json and ops.json
	$(BIN)/python -m nas.bench
	$(BIN)/python -m search_spaces.linear_attention.bench

scaling: $(INSTALLED)  ## what a search costs on up to 1,024 workers, simulated; writes results/scaling.md
	$(PIP) install --quiet --no-compile -c constraints.txt -e '.[llm]'
	$(BIN)/python -m nas.scaling

clean:                 ## removes .venv and caches; results stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info build

$(INSTALLED): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "nas needs Python 3.11 or later: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --quiet --no-compile -c constraints.txt -e .
	@touch $@

$(DEVELOPED): $(INSTALLED)
	$(PIP) install --quiet --no-compile -c constraints.txt -e '.[dev]'
	@touch $@
