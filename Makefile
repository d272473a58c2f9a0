# make demo      transcribe the examples
# make test      set up, lint, check types, run the tests that take minutes
# make slow      the tests that take longer
# make test-all  both
# make docs      write the generated parts of docs/ anew
#
# Needs make, a POSIX shell and Python 3.11 to 3.14. Everything goes into .venv; PYTHON=... names another Python.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python3.14; do \
	"$$p" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null \
	&& echo "$$p" && break; done)
BIN = .venv/bin
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt
OUT = out/demo
# Test files at a time, each with a core; they may take 3 GB each.
TESTERS = 2
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TESTERS) --dist loadfile
AZURITE = 3.37.0
CHROMIUM = 153.0.0

.PHONY: setup demo test fast slow test-all lint style types docs clean

setup: .venv/dev.stamp .venv/npm.stamp

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.14 with venv was found (torch is built for these):" \
		"install one (on Debian and Ubuntu: python3 and python3-venv), or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/demo.stamp: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[demo]'
	@touch $@

.venv/dev.stamp: .venv/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[dev]'
	@touch $@ .venv/demo.stamp

# For tests: Azure's storage, and a browser for x86-64 Linux (elsewhere an installed one is taken, tests/browsers.py).
# Node comes as a wheel, so that nothing but Python is needed.
.venv/npm.stamp: .venv/dev.stamp Makefile
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/npm install --prefix .venv/npm --ignore-scripts --no-audit --no-fund \
		--loglevel=error azurite@$(AZURITE) @sparticuz/chromium@$(CHROMIUM)
	@touch $@

demo: .venv/demo.stamp
	$(BIN)/bulkscribe transcribe examples/audio --out $(OUT) --model base
	@$(BIN)/python examples/show.py $(OUT)

# Types are checked beside the tests: those wait at times, for processes and servers.
test: style .venv/npm.stamp
	$(MAKE) -j 2 types fast

fast: .venv/npm.stamp
	$(PYTEST) -m 'not slow'

slow: .venv/npm.stamp
	$(PYTEST) -m slow

test-all: test
	$(MAKE) slow

lint: style types

style: .venv/dev.stamp
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .

types: .venv/dev.stamp
	$(BIN)/python -m mypy

docs: .venv/dev.stamp
	$(BIN)/python tests/test_docs.py

clean:
	rm -rf .venv out build dist .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
