# Verbs of the project. `make` alone lists them. Everything runs inside .venv, made from locked requirements.
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Two processes, the whole of a file in one of them: compiled kernels are then shared within a file.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help dev demo test check static format bench docs golden lock clean

help: ## list these verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- environment: a stamp per locked set; nothing is installed again until its lock changes -------------------

$(VENV)/.build: requirements/build.txt
	@$(PYTHON) -c 'import sys; sys.exit("Volano needs Python 3.11 or newer: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --require-hashes -r requirements/build.txt
	@touch $@

$(VENV)/.demo: requirements/demo.txt $(VENV)/.build
	$(PIP) install --require-hashes --no-build-isolation -r requirements/demo.txt
	@touch $@

# dev.txt holds all of demo.txt at the same versions, so its stamp answers for both.
$(VENV)/.dev: requirements/dev.txt $(VENV)/.build
	$(PIP) install --require-hashes --no-build-isolation -r requirements/dev.txt
	@touch $(VENV)/.demo $@

# The project itself, editable. Entry points live in its metadata, hence the dependency on pyproject.toml.
$(VENV)/.project: pyproject.toml $(VENV)/.build
	$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@touch $@

dev: $(VENV)/.dev $(VENV)/.project ## make .venv with everything that developing needs

demo: $(VENV)/.demo $(VENV)/.project ## replay a year of flights: make demo ARGS='--sample 0.1'
	$(BIN)/volano demo flights $(ARGS)

# --- proof ----------------------------------------------------------------------------------------------------

test: dev ## every test
	$(PYTEST) $(ARGS)

check: static ## format, lint, types, imports, and the tests without the mark slow: some minutes
	$(PYTEST) -m "not slow" $(ARGS)

static: dev ## format, lint, types, imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: dev ## rewrite the format, mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: dev ## run the README and the documents
	$(PYTEST) tests/docs $(ARGS)

golden: dev ## rewrite the golden files; read the diff before you commit it
	VOLANO_GOLDEN=rewrite $(PYTEST) tests $(ARGS)

bench: dev ## ratios against named libraries: benchmarks/README.md
	@set -e; for script in features decide; do $(BIN)/python "benchmarks/$$script.py" $(ARGS); done

# --- upkeep ---------------------------------------------------------------------------------------------------

# dev.txt is solved first; the smaller sets are cut from it. Pins stay unless ARGS=--upgrade.
SOLVE := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links --no-emit-package volano
EXTRAS := --extra demo --extra pandas --extra polars --extra serve --extra client

lock: dev ## solve requirements/*.txt anew: ARGS=--upgrade moves the pins
	$(SOLVE) $(ARGS) pyproject.toml $(EXTRAS) --group dev -o requirements/dev.txt >/dev/null
	$(SOLVE) pyproject.toml -c requirements/dev.txt -o requirements/base.txt >/dev/null
	$(SOLVE) pyproject.toml -c requirements/dev.txt --extra demo -o requirements/demo.txt >/dev/null
	$(SOLVE) --group build -c requirements/dev.txt -o requirements/build.txt >/dev/null

clean: ## remove .venv, caches and builds
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
