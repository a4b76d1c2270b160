# One entry for every job; `make help` lists them. Needs Python >= 3.10 and make; everything else lands in .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first Python on the PATH that is new enough; `make PYTHON=/path/to/python` overrides it.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.installed-bench
DOCS_INSTALLED := $(VENV)/.installed-docs

# Three workers for two cores, since tests wait for processes that they start. Compiled kernels are kept between runs: the
# cache sees an edit in any kernel's source. .ci/run shares a fresh one over its lanes. Bounds checks have one of their
# own, since either kind of code replaces the other.
WORKERS ?= $(shell echo $$(( ($$(nproc 2>/dev/null || echo 2) * 3 + 1) / 2 )))
TEST_NUMBA_CACHE_DIR ?= $(CURDIR)/.numba_cache
# A worker keeps to one core: torch's threads would wait for each other on cores that are taken.
TEST_ENV := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 NUMBA_CACHE_DIR=$(TEST_NUMBA_CACHE_DIR)
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
PYTEST_ARGS ?=

.PHONY: help install check test nightly boundscheck lint format demo bench trust trust-quick docs wheel clean

help:  ## this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

$(BIN)/python:
	@[ -n "$(PYTHON)" ] || { echo "No Python >= 3.10 on the PATH: install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Could not make $(VENV): on Debian and Ubuntu, install python3-venv." >&2; exit 1; }

# `make install EXTRAS=dev,integrations` also takes the libraries of others that tests ask where they are there.
EXTRAS ?= dev

# Without compiling all modules of all libraries, which takes most of the time: Python compiles what it imports.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile

# Installed again only where what it is installed from has changed.
$(INSTALLED): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

$(BENCH_INSTALLED): $(INSTALLED)
	$(PIP_INSTALL) -c constraints.txt -e '.[dev,bench]'
	@touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(PIP_INSTALL) -c constraints.txt -e '.[dev,docs]'
	@touch $@

install: $(INSTALLED)  ## .venv with the package (editable) and the tools, its kernels compiled
	@[ -n "$${CI:-}" ] || $(BIN)/corpus-teacher warm-up --narrow

check: lint  ## while one works: lint, and the fast half of the tests on few examples, with a kernel cache that is kept
	HYPOTHESIS_PROFILE=quick $(TEST_ENV) $(PYTEST) -m "not slow" tests $(PYTEST_ARGS)

test: $(INSTALLED)  ## every test; PYTEST_ARGS='-k name' picks some
	$(TEST_ENV) $(PYTEST) $(PYTEST_ARGS)

nightly: $(INSTALLED)  ## the property tests with thousands of new examples each; hours
	HYPOTHESIS_PROFILE=nightly $(TEST_ENV) $(PYTEST) $(PYTEST_ARGS) tests/index tests/teacher

# Left out: what runs no kernel, or those that others run too: files, faults, processes, the oracle, shards elsewhere. By
# default 16-bit tokens alone (tests/index/conftest.py): the kernels for 32 bits have the same indices.
BOUNDS_ENV := NUMBA_BOUNDSCHECK=1 NUMBA_OPT=1 NUMBA_CACHE_DIR=$(CURDIR)/.numba_cache/bounds
NO_BOUNDS := reference kernels/test_jit.py estimators/test_kept.py sharded/test_changes.py sharded/test_elsewhere.py \
	test_brute_force.py test_files.py test_kenlm.py test_manifest.py test_names.py test_replacement.py test_warming.py
boundscheck: $(INSTALLED)  ## the index's tests on few examples, with bounds checks in every kernel
	$(BOUNDS_ENV) $(BIN)/corpus-teacher warm-up --narrow
	$(BOUNDS_ENV) HYPOTHESIS_PROFILE=quick HF_HUB_OFFLINE=1 $(PYTEST) $(NO_BOUNDS:%=--ignore=tests/index/%) tests/index $(PYTEST_ARGS)

lint: $(INSTALLED)  ## formatting, lint, types, layers; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)  ## formats the code and fixes what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

demo: $(INSTALLED)  ## the whole run: corpus, index, three students, table and report
	$(BIN)/corpus-teacher demo $(DEMO_ARGS)

bench: $(BENCH_INSTALLED)  ## ours and the peers on the same tokens; BENCH_ARGS='--sizes 10M' and so on
	$(BIN)/python -m bench $(BENCH_ARGS)

trust: $(INSTALLED)  ## faults on purpose: flipped bits, kills; what became of them goes into bench/results/trust.json; an hour
	$(BIN)/python -m bench.trust --out bench/results/trust.json $(TRUST_ARGS)

trust-quick: $(INSTALLED)  ## the same in small, minutes; writes nothing
	$(BIN)/python -m bench.trust --quick $(TRUST_ARGS)

docs: $(DOCS_INSTALLED)  ## the documentation site into site/; a warning or a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

wheel: $(INSTALLED)  ## dist/*.whl and dist/*.tar.gz
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .

clean:  ## removes what the targets above made
	rm -rf $(VENV) site dist build .pytest_cache .hypothesis .mypy_cache .ruff_cache .import_linter_cache .numba_cache .demo corpus-teacher-demo
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
