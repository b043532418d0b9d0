# Every target does its own set-up: it takes Python 3.11 or newer, make and git. `make help` lists the targets.

VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3 python3.14; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Stamps live inside the environment, so they go when it goes.
MADE := $(VENV)/paibook-venv.stamp
RUN := $(VENV)/paibook-run.stamp
DEV := $(VENV)/paibook-dev.stamp
KERNEL := $(VENV)/paibook-kernel.stamp
# What the benchmarks measure against has an environment of its own; a peer that is missing is skipped.
PEERS := benchmarks/.venv-peers
SPEC := $(wildcard kernels/spec/*)
LINTED := paibook magics kernels tests benchmarks notebooks .ci
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test lint lab bench bench-cells bench-mapreduce bench-training bench-allreduce bench-growth bench-ps bench-curves bench-keys lock widgets clean
# A set-up that fails must not leave a stamp that says it worked.
.DELETE_ON_ERROR:

help: ## List the targets
	@echo "paibook: make TARGET [ARGS='...'] [VENV=folder] [PYTHON=python3.12]"
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 15

setup: $(RUN) ## Create the environment and install paibook from the lock, with its kernel

setup-dev: $(DEV) ## The same, with what the tests and linters need

$(MADE):
	@test -n "$(PYTHON)" || { echo "make: found no Python 3.11 or newer with the venv module;" \
		"install one (Debian: python3-venv) or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "creating $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@touch $@

$(RUN): requirements.lock pyproject.toml $(SPEC) | $(MADE)
	@echo "installing requirements.lock into $(VENV) (a few minutes the first time)"
	@$(PIP) install -r requirements.lock
	@$(PIP) install --no-deps -e .
	@touch $@

$(DEV): tests/requirements.lock $(RUN)
	@echo "installing tests/requirements.lock into $(VENV)"
	@$(PIP) install -r tests/requirements.lock
	@touch $@

$(PEERS)/paibook-peers.stamp: benchmarks/requirements-peers.txt | $(MADE)
	@test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	@echo "installing the benchmarks' peers into $(PEERS)"
	@$(PEERS)/bin/python -m pip --disable-pip-version-check --quiet install -r $< && touch $@ \
		|| echo "the peers could not be installed: those missing are skipped"

demo: $(RUN) ## Run the quickstart headless and print what agrees with its reference
	@$(BIN)/python notebooks/run_quickstart.py $(ARGS)

test: $(DEV) ## Run the whole suite, the fast tests first (ARGS='-m "not slow"' for those alone)
	@$(BIN)/python -m pytest $(ARGS)

lint: $(DEV) ## Run ruff, mypy and import-linter
	@$(BIN)/ruff check $(wildcard $(LINTED))
	@$(BIN)/ruff format --check $(wildcard $(LINTED))
	@$(BIN)/mypy
	@$(BIN)/lint-imports

lab: $(RUN) ## Open JupyterLab on the tutorials, with the paibook kernel
	@$(BIN)/jupyter lab --notebook-dir=notebooks --MultiKernelManager.default_kernel_name=paibook $(ARGS)

bench: $(RUN) $(PEERS)/paibook-peers.stamp ## Run the benchmarks against their peers
	@$(BIN)/python -m benchmarks $(ARGS)

bench-cells: $(RUN) $(PEERS)/paibook-peers.stamp ## Run the notebook benchmarks alone: cluster start, no-op cell, Stop, error
	@$(BIN)/python -m benchmarks cells $(ARGS)

bench-mapreduce: $(RUN) $(PEERS)/paibook-peers.stamp ## Run the MapReduce benchmarks alone: TF-IDF, word count, group-bys (20 min)
	@$(BIN)/python -m benchmarks mapreduce $(ARGS)

bench-training: $(RUN) $(PEERS)/paibook-peers.stamp ## Run the benchmarks of training steps alone, beside torchrun and mpiexec (2 min)
	@$(BIN)/python -m benchmarks training $(ARGS)

bench-allreduce: $(RUN) $(PEERS)/paibook-peers.stamp ## Run the benchmarks of comm.Allreduce alone, beside gloo and MPI (2 min)
	@$(BIN)/python -m benchmarks allreduce $(ARGS)

bench-growth: $(RUN) $(PEERS)/paibook-peers.stamp ## Run the benchmarks of 2 to 32 ranks alone: start, no-op cell, barrier, allreduce (10 min)
	@$(BIN)/python -m benchmarks growth $(ARGS)

bench-ps: $(RUN) $(PEERS)/paibook-peers.stamp ## Run the benchmarks of the parameter server alone, beside Ray, Dask, torch, MPI and Vowpal Wabbit (10 min)
	@$(BIN)/python -m benchmarks ps $(ARGS)

bench-curves: $(RUN) ## Run the benchmarks of metrics and live curves alone: what they cost a step of a millisecond (3 min)
	@$(BIN)/python -m benchmarks curves $(ARGS)

bench-keys: $(RUN) ## Run the benchmarks of a sparse table of 100,000 to 100 million keys alone (5 min)
	@$(BIN)/python -m benchmarks keys $(ARGS)

lock: | $(MADE) ## Upgrade everything pyproject.toml allows and write the locks and environment.yml anew
	@rm -rf build/lock && $(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip --disable-pip-version-check --quiet install -e '.[torch,gpu,lab,algorithms,figures,polars,images,sql,search,jobs,scheduler,demo,test,lint]'
	@build/lock/bin/python .ci/lock.py

widgets: ## Rebuild the bundled JavaScript of the widgets and of JupyterLab's extension (needs node and npm)
	@cd paibook/widgets/js && npm ci --no-audit --no-fund && npm run build
	@cd extensions/lab && npm ci --no-audit --no-fund && npm run build

clean: ## Remove caches, builds and what runs have written here (the environment stays: rm -r $(VENV))
	@rm -rf build dist out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
