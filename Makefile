# The environment is made once and again whenever what it is made from changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo serve demo-model gallery page test lint types programs bench-server chaos clean

demo: $(VENV)/.engine
	$(BIN)/keyreel generate --request examples/demo.json --model demo --out out/demo.mp4 --sheet out/demo.png

serve: $(VENV)/.engine
	$(BIN)/keyreel serve

# Hours on two cores; goes on where it was stopped.
demo-model: $(VENV)/.engine
	$(PIP) --group training
	$(BIN)/python -m training.make_demo --out out/demo-model --state out/demo-state

gallery: $(VENV)/.engine
	$(BIN)/python -m training.gallery

# With the environment's own Node before any other: fal's JavaScript client runs in it.
test: lint types programs
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest

page: $(VENV)/.dev
	$(BIN)/python web/hatch_build.py

programs:
	sh tests/programs.sh

# The server's figures in docs/performance.md.
bench-server: $(VENV)/.dev
	$(BIN)/python -m benchmarks.server

# Processes killed and a disk filled, 200 times each. Takes hours.
chaos: $(VENV)/.dev
	$(BIN)/python -m tests.worker.chaos --rounds 200
	$(BIN)/python -m tests.server.chaos --rounds 200
	$(BIN)/python -m tests.server.full_disk --rounds 200

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev page
	$(BIN)/mypy
	$(BIN)/python web/hatch_build.py run check

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
