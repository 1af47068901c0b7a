# The environment is made once and again whenever what it is made from changes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --constraint constraints.txt
# One process per core, with one thread of torch. The environment's own Node comes before any other: fal's JavaScript
# client runs in it.
PYTEST = OMP_NUM_THREADS=1 PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help demo serve test test-fast lint types page programs docs gallery demo-model image bench-engine bench-server bench-gpu bench-fleet bench-busy chaos fuzz soak storm clients audit lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.engine ## Make a video from the pictures in examples/
	$(BIN)/keyreel generate --request examples/demo.json --model demo --out out/demo.mp4 --sheet out/demo.png

serve: $(VENV)/.engine ## Start the server with the demo model: API, queue, worker, page
	$(BIN)/keyreel serve

# Goes on where it was stopped.
demo-model: $(VENV)/.engine ## Train the demo model (hours on two cores)
	$(PIP) --group training
	$(BIN)/python -m training.make_demo --out out/demo-model --state out/demo-state

docs: $(VENV)/.engine ## Write docs/reference/ from the code
	$(BIN)/python -m docs.reference

gallery: $(VENV)/.engine ## Make the videos and pictures of docs/gallery.md
	$(BIN)/python -m training.gallery

test: lint types programs ## Run lint, types and every test
	$(PYTEST)

test-fast: $(VENV)/.dev ## Run the tests that take less than about half a second each
	$(PYTEST) -m 'not slow'

page: $(VENV)/.dev ## Build the playground into the package
	$(BIN)/python web/hatch_build.py

programs: ## Install the programs that tests run (as root on Debian), or name them
	sh tests/programs.sh

image: ## Build the container images of gateway and worker
	sh deploy/image.sh

bench-engine: $(VENV)/.dev ## Measure the engine's figures in docs/performance.md, beside diffusers
	$(BIN)/python -m benchmarks.engine

bench-server: $(VENV)/.dev ## Measure the server's figures in docs/performance.md
	$(BIN)/python -m benchmarks.server

bench-gpu: $(VENV)/.engine ## Measure the engine on a GPU (six minutes), for docs/performance.md
	$(BIN)/python -m benchmarks.gpu --out out/gpu.json

bench-fleet: $(VENV)/.dev programs ## Measure the fleet's figures in docs/performance.md
	$(BIN)/python -m benchmarks.fleet

# BEFORE=COMMIT measures the sources of that commit first.
bench-busy: $(VENV)/.dev ## Measure how busy a device is kept, and what a LoRA costs, for docs/performance.md (minutes)
	$(BIN)/python -m benchmarks.busy $(if $(BEFORE),--before $(BEFORE))

chaos: $(VENV)/.dev programs ## Kill processes and fill a disk, 200 times each, and whole workers 50 times (hours)
	$(BIN)/python -m tests.worker.chaos --rounds 200
	$(BIN)/python -m tests.worker.takeover --rounds 50
	$(BIN)/python -m tests.server.chaos --rounds 200
	$(BIN)/python -m tests.server.chaos --rounds 200 --database postgresql
	$(BIN)/python -m tests.server.stages
	$(BIN)/python -m tests.server.stages --database postgresql
	$(BIN)/python -m tests.server.backlog
	$(BIN)/python -m tests.server.backlog --database postgresql
	$(BIN)/python -m tests.server.full_disk --rounds 200
	$(BIN)/python -m tests.server.full_disk --rounds 200 --database postgresql

# Prints its seed: `make fuzz SEED=7` makes the same calls again.
fuzz: $(VENV)/.dev ## Make 10^5 bad calls to a server, and print what it answered
	$(BIN)/python -m tests.fuzz.fuzz $(if $(SEED),--seed $(SEED))

soak: $(VENV)/.dev programs ## Serve a day's videos at full speed and check that nothing grows (half an hour)
	$(BIN)/python -m tests.server.soak
	$(BIN)/python -m tests.server.soak --database postgresql

# Prints its seed: `make storm SEED=7` runs the same plan again.
storm: $(VENV)/.dev programs ## Run a fleet while its processes and servers fail (minutes)
	$(BIN)/python -m tests.storm.storm $(if $(SEED),--seed $(SEED))

# Installs them once, outside the tree.
clients: $(VENV)/.dev ## Run some forty clients of fal through `keyreel wrap`, and write what works to docs/compatibility.md (minutes)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.clients.compatibility

audit: $(VENV)/.dev ## Look up advisories for the pinned packages, and the licences of the default install
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m supply.audit

lock: $(VENV)/.dev ## Write locks/ from pyproject.toml and constraints.txt
	$(BIN)/python -m supply.lock

lint: $(VENV)/.dev ## Run ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev page ## Run mypy and the page's own check
	$(BIN)/mypy
	$(BIN)/python web/hatch_build.py run check

$(VENV)/.engine: pyproject.toml constraints.txt
	@echo "Installing Keyreel and its engine into $(VENV)/, once: some 350 MB to download, 1.5 GB on the disk. It takes some minutes."
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) --editable '.[engine]'
	touch $@

$(VENV)/.dev: $(VENV)/.engine
	@echo "Installing the development tools into $(VENV)/, once."
	$(PIP) --group dev
	touch $@

clean: ## Delete the environment, caches and out/
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache out
