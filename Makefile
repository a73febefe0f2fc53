# Every target sets up what it needs in $(VENV) and reuses it next time.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Threads that wait don't spin: on few or shared cores they would keep the others from working.
export OMP_WAIT_POLICY ?= passive

.PHONY: help setup demo test test-slow test-transformers test-oldest fuzz train-tiny evaluate-tiny lint build clean

help:
	@echo "make demo               segment a synthetic video with the shipped tiny model: demo/"
	@echo "make test               lint and the fast tests"
	@echo "make test-slow          long or memory-hungry tests"
	@echo "make test-transformers  transformers' own common tests against our classes"
	@echo "make test-oldest        the fast tests with the oldest supported torch and transformers"
	@echo "make fuzz               read INPUTS mutated files of every kind: no crash, no hang, no obscure error"
	@echo "make train-tiny         make the synthetic set and train the tiny model, on a GPU or the CPU: runs/tiny-synthetic/"
	@echo "make evaluate-tiny      score MODEL (the shipped one) on the held-out synthetic videos, beside two baselines"
	@echo "make build              sdist, wheel, and a clean environment that installs and imports the wheel and builds its kernels"

# Installed again only when pyproject.toml has changed since.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

setup: $(VENV)/.installed

demo: setup
	$(BIN)/vita-hf demo --output demo --overwrite

SYNTHETIC := data/synthetic
# How to go on after an interruption, or further: the same command, with STEPS=20000 for example.
STEPS ?= 12000
MODEL ?= src/vita_hf/models/tiny-synthetic

$(SYNTHETIC)/train/annotations.json: | setup
	$(BIN)/python scripts/make_synthetic_dataset.py --seed 1 --videos 4000 --length 24 --output $(@D)

# Seed 1000 is never trained on; what it gives is in benchmarks/synthetic-heldout.json.
$(SYNTHETIC)/heldout/annotations.json: | setup
	$(BIN)/python scripts/make_synthetic_dataset.py --seed 1000 --videos 96 --length 24 --output $(@D)

train-tiny: $(SYNTHETIC)/train/annotations.json $(SYNTHETIC)/heldout/annotations.json
	$(BIN)/python scripts/train.py --recipe tiny-synthetic \
	    --train-json $(SYNTHETIC)/train/annotations.json --train-images $(SYNTHETIC)/train/JPEGImages \
	    --eval-json $(SYNTHETIC)/heldout/annotations.json --eval-images $(SYNTHETIC)/heldout/JPEGImages \
	    --output runs/tiny-synthetic --set training.steps=$(STEPS)

evaluate-tiny: $(SYNTHETIC)/heldout/annotations.json
	$(BIN)/python benchmarks/benchmark_tracking.py --model $(MODEL) \
	    --annotations $(SYNTHETIC)/heldout/annotations.json --images $(SYNTHETIC)/heldout/JPEGImages

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/ty check src
	$(BIN)/python -m mlinter --no-progress src/vita_hf

test: lint
	$(BIN)/python -m pytest -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest -m slow

test-transformers: setup
	$(BIN)/python tests/transformers_common/fetch.py
	$(BIN)/python -m pytest tests/transformers_common

test-oldest: .venv-oldest/.installed
	.venv-oldest/bin/python -m pytest -m "not slow"

# For minutes; over night: make fuzz INPUTS=100000
INPUTS ?= 500

fuzz: setup
	OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m fuzz --inputs $(INPUTS)
	$(BIN)/python tests/fuzz/sanitized_kernels.py $(INPUTS)

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
