# The environment is made once and again whenever what it is made from changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo serve demo-model test lint types clean

demo: $(VENV)/.engine
	$(BIN)/keyreel generate --request examples/demo.json --model demo --out out/demo.mp4 --sheet out/demo.png

serve: $(VENV)/.engine
	$(BIN)/keyreel serve

# Hours on two cores; goes on where it was stopped.
demo-model: $(VENV)/.engine
	$(BIN)/python -m training.make_demo --out out/demo-model --state out/demo-state

test: lint types
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

$(VENV)/.engine: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) --editable '.[engine]'
	touch $@

$(VENV)/.dev: $(VENV)/.engine
	$(PIP) --group dev
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache out
