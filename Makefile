# On a fresh machine, `make run` serves the demo model and `make test` runs the tests.

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && echo $$p && break; done)
PIP_INSTALL := SAM2_BUILD_CUDA=0 $(BIN)/pip install --quiet --disable-pip-version-check
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help run test test-all test-gpu check lock clean

help:
	@echo "make run          set up, and serve the demo model on http://127.0.0.1:5000 (flags: make run ARGS='--port 8000')"
	@echo "make test         set up, and run the checks and the tests that need no GPU (a selection: make test ARGS='-k rle')"
	@echo "make test-all     the same with the slow tests; run it before a release"
	@echo "make test-gpu     set up, and run the tests that need a CUDA GPU"
	@echo "make check        set up, and run the linter and the type checker"
	@echo "make lock         update the locks after a change of requirements*.txt (newer versions: make lock ARGS=--upgrade)"
	@echo "make clean        remove the virtual environment and the files left by building a wheel"

run: $(VENV)/installed
	@exec $(BIN)/python server.py $(ARGS)

# One process per core, up to 8, with one thread each: more torch threads would compete for the cores.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadgroup

test: check
	@$(PYTEST) -m "not slow" $(ARGS)

test-all: check
	@$(PYTEST) $(ARGS)

test-gpu: $(VENV)/installed-dev
	@$(BIN)/python -m pytest -m gpu $(ARGS)

check: $(VENV)/installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

clean:
	rm -rf $(VENV) build *.egg-info

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 not found; give its path: make run PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "$(PYTHON) cannot make a virtual environment; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }

# sam2 and two of its dependencies come as source. They build without isolation, which would install a second torch.
$(VENV)/installed-packages: requirements-build.lock requirements.lock | $(BIN)/python
	@echo "Installing requirements.lock into $(VENV) (once; takes a few minutes and several GB) ..."
	@$(PIP_INSTALL) --require-hashes -r requirements-build.lock
	@$(PIP_INSTALL) --no-build-isolation --require-hashes -r requirements.lock
	@touch $@

# An editable install of the project: it provides the command sam2-amg.
$(VENV)/installed: pyproject.toml requirements.txt requirements-dev.txt $(VENV)/installed-packages
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock $(VENV)/installed
	@echo "Installing requirements-dev.lock into $(VENV) ..."
	@$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

# uv resolves the pins for each supported Python. It has a separate environment because nothing else needs it.
LOCK := $(VENV)/lock
COMPILE = SAM2_BUILD_CUDA=0 $(LOCK)/bin/uv pip compile --quiet --python $(LOCK)/bin/python --python-version 3.11 \
	--universal --fork-strategy fewest --generate-hashes --no-emit-index-url --no-build-isolation \
	--custom-compile-command "make lock" $(ARGS)

lock: $(LOCK)/bin/uv
	@$(COMPILE) requirements-build.txt --output-file requirements-build.lock
	@$(COMPILE) --constraints requirements-build.lock requirements.txt --output-file requirements.lock
	@$(COMPILE) --constraints requirements.lock requirements-dev.txt --output-file requirements-dev.lock

$(LOCK)/bin/uv: | $(BIN)/python
	@$(PYTHON) -m venv $(LOCK)
	@$(LOCK)/bin/pip install --quiet --disable-pip-version-check uv==0.13.9 -r requirements-build.txt
