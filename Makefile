# Everything runs in .venv, made on first use; PYTHON chooses the interpreter that makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A process for each core, one thread in each: what tests compute is too small to be shared out among threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint docs bench gpu-check clean

help:  ## List these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.has-demo  ## Learn to find emoji by sentences, measure it, write demo_output/
	$(BIN)/python examples/openmoji_demo.py

test: $(VENV)/.has-test  ## Run the tests, the doctests and the snippets of the README and the guides
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.has-test  ## Run those too that are slow and rarely fail: whole scripts and searches
	$(PYTEST)

lint: $(VENV)/.has-lint  ## Check format, style, types and which module imports which
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.has-docs  ## Build the documentation into docs/_build/html, warnings being errors
	$(BIN)/python -m sphinx -n -W --keep-going -b html docs docs/_build/html

bench: $(VENV)/.has-test  ## Run the benchmarks of tests/benchmarks, write bench_output/*.json
	mkdir -p bench_output
	for script in tests/benchmarks/bench_*.py; do \
		$(BIN)/python $$script --out bench_output/$$(basename $$script .py).json || exit 1; \
	done

gpu-check:  ## Run the tests and the benchmarks that need a GPU, with the PYTHON that has torch and scikit-learn
	PYTHONPATH=. $(PYTHON) tests/benchmarks/gpu_check.py

clean:  ## Remove what was built, .venv and demo_output included
	rm -rf $(VENV) build dist *.egg-info demo_output bench_output docs/_build docs/auto_examples docs/generated
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# One stamp an extra: a target installs only what it needs, and again only when setup.cfg changes.
$(VENV)/.has-%: setup.cfg | $(VENV)/.made
	$(BIN)/python -m pip install --editable '.[$*]'
	@touch $@
