# Each target makes .venv on first use and is quick afterwards. On Windows see the README for the same in plain lines.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: train test test-quick test-gpu lab bench notebooks

train: .venv/installed
	$(BIN)/python tools.py notebook notebooks/train.ipynb

test: .venv/installed-tests
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n auto

test-quick: .venv/installed-tests
	$(BIN)/ruff check .
	$(BIN)/python -m pytest -n auto -m quick

test-gpu: .venv/installed-tests
	$(BIN)/python -m pytest -n 8 --device cuda -m gpu

lab: .venv/installed
	$(BIN)/python tools.py lab

bench: .venv/installed-bench
	$(BIN)/python -m bench

notebooks: .venv/installed
	for notebook in notebooks/*.ipynb; do $(BIN)/python tools.py notebook $$notebook --keep-outputs True || exit 1; done

# Without --no-compile pip compiles all files of all packages, of which most are never imported: half of its time.
.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r requirements.txt
	touch $@

.venv/installed-%: .venv/installed %/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -r $*/requirements.txt
	touch $@
