# `make demo` and `make test` set up everything they need in .venv; nothing outside this folder is touched.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
OUT ?= demo
TEST_PROCESSES ?= 4
SOAK_S ?= 1800

.PHONY: demo test test-slow soak check bench format clean

demo: $(VENV)/.run
	$(BIN)/uptal demo --out $(OUT)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --maxprocesses $(TEST_PROCESSES) --dist loadscope -m "not slow"

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

soak: $(VENV)/.dev
	UPTAL_FUZZ=5000 UPTAL_KILLS=20 UPTAL_SAVES=100 UPTAL_MUTATIONS=10000 $(BIN)/python -m pytest -q \
	  tests/test_checkpoint.py tests/test_train.py tests/test_processes.py tests/test_annotations.py \
	  tests/test_video_damage.py tests/test_weights.py tests/test_features.py
	$(BIN)/python tests/soak.py --seconds $(SOAK_S) --json soak.json

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

SPEED = start augment bmn checkpoints decode encoders evaluate extract gtad i3d loader packs soft_nms

bench: $(VENV)/.dev
	for script in $(SPEED:%=benchmarks/%.py); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build dist *.egg-info src/*.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $@ $(VENV)/.run
