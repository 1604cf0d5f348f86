# Everything sets itself up: `make train` and `make test` work on a bare Debian or Ubuntu machine with Python and git.
# ARGS are passed on: make train ARGS="--steps 20 --seed 1", make test ARGS="tests/runs -x".

SHELL := /bin/sh
VENV := .venv
PY := $(VENV)/bin/python
ARGS ?=
CONFIG ?= configs/nano.toml

# The first interpreter that this package supports.
PYTHON ?= $(shell for python in python3 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$python && break; done)

# Without an NVIDIA GPU: one version, chosen on its own, so that a CPU build is taken where the package index has one.
# Where it has none, TORCH_INDEX=<address of PyTorch's index of CPU wheels> saves gigabytes of CUDA packages.
HAS_GPU := $(shell nvidia-smi -L >/dev/null 2>&1 && echo yes)
TORCH ?= $(if $(HAS_GPU),torch,torch==2.13.0)
TORCH_INDEX ?=

.PHONY: setup jail engine train test check format image clean

train: image  ## nano self-play in the sandbox
	$(VENV)/bin/azr train $(CONFIG) $(ARGS)

test: image jail  ## all that CI runs
	$(PY) -m pytest $(ARGS)

check: setup  ## format, lint, types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright

format: setup
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

setup: $(VENV)/.installed  ## the environment in .venv, once

engine: setup  ## a Docker engine that answers
	@$(PY) -m sandbox.ensure_engine

jail:  ## bubblewrap, for the sandbox's other backend
	@command -v bwrap >/dev/null || { \
		test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { \
			echo "the jail backend needs bubblewrap: install it (Debian, Ubuntu: sudo apt-get install bubblewrap)" >&2; exit 1; }; \
		echo "no bubblewrap here: installing it with apt-get (once)"; \
		apt-get -qq update </dev/null; \
		DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install bubblewrap </dev/null >/dev/null; }

image: engine  ## the sandbox image, from this machine's own Python
	@$(VENV)/bin/azr image build

clean:  ## caches and build products; .venv and runs/ stay
	rm -rf build dist .pytest_cache .ruff_cache .hypothesis .coverage
	find azr sandbox tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml $(VENV)/.torch
	@echo "installing azr and what it needs into $(VENV)"
	@$(PY) -m pip install -q --disable-pip-version-check -e '.[train,dev]'
	@touch $@

$(VENV)/.torch: | $(PY)
	@echo "installing $(TORCH) into $(VENV) (once; it is large)"
	@$(PY) -m pip install -q --disable-pip-version-check $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	@touch $@

$(PY):
	@test -n "$(PYTHON)" || { echo "azr needs Python 3.11 or 3.12: install one, or name it: make setup PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory .python-venv
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

# Debian and Ubuntu keep ensurepip in a package of its own.
.PHONY: .python-venv
.python-venv:
	@test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { \
		echo "$(PYTHON) cannot make environments: install its venv package (Debian, Ubuntu: sudo apt-get install python3-venv)" >&2; exit 1; }
	@echo "$(PYTHON) cannot make environments yet: installing its venv package with apt-get (once)"
	@apt-get -qq update </dev/null
	@DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install \
		"$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" </dev/null >/dev/null
