# Every target sets up what it needs in $(VENV) and reuses it next time.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help setup test test-slow test-transformers test-oldest lint build clean

help:
	@echo "make test               lint and the fast tests"
	@echo "make test-slow          long or memory-hungry tests"
	@echo "make test-transformers  transformers' own common tests against our classes"
	@echo "make test-oldest        the fast tests with the oldest supported torch and transformers"
	@echo "make build              sdist, wheel, and a clean environment that installs and imports the wheel and builds its kernels"

# Installed again only when pyproject.toml has changed since.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

setup: $(VENV)/.installed

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest -m slow

test-transformers: setup
	$(BIN)/python tests/transformers_common/fetch.py
	$(BIN)/python -m pytest tests/transformers_common

test-oldest: .venv-oldest/.installed
	.venv-oldest/bin/python -m pytest -m "not slow"

.venv-oldest/.installed: pyproject.toml
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --upgrade pip
	.venv-oldest/bin/python -m pip install --quiet --editable ".[dev]" "torch==2.11.*" "torchvision==0.26.*" "transformers==5.17.0"
	touch $@

build: setup
	rm -rf dist && $(BIN)/python -m build
	rm -rf build/wheel-check && $(PYTHON) -m venv build/wheel-check
	build/wheel-check/bin/python -m pip install --quiet dist/*.whl
	cd build && wheel-check/bin/python -c "import vita_hf; print('wheel imports, version', vita_hf.__version__)"
	cd build && VITA_HF_KERNELS_CACHE=kernels wheel-check/bin/python -m vita_hf.ops build

clean:
	rm -rf build dist .pytest_cache .ruff_cache
