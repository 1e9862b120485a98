# `make demo` and `make test` are the only two commands a fresh machine needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo

.DEFAULT_GOAL := help
.PHONY: help setup demo lint types test test-all bench docs clean-demo

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.installed: pyproject.toml setup.cfg constraints.txt
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "installing vlapipe and its tools into $(VENV) (once; a few minutes)"
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0
	@$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(VENV)/.installed  ## make .venv and install everything

demo: setup  ## raw demo data -> dataset -> report -> a policy in training, in a few minutes on a CPU
	@PATH="$(CURDIR)/$(BIN):$$PATH" bash docs/demo.sh $(DEMO)

lint: setup  ## ruff: style and mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## mypy, strict
	$(BIN)/mypy

test: lint types  ## what CI runs: lint, types and the tests that take minutes
	$(BIN)/pytest -m "not slow" -n 2 --hypothesis-profile=repeatable

test-all: setup  ## every test, the long ones too
	$(BIN)/pytest

bench: setup  ## every benchmark; one JSON line a case
	@for f in benchmarks/bench_*.py; do echo "# $$f" >&2; $(BIN)/python $$f || exit 1; done

docs: setup  ## write docs/errors.md from the code
	$(BIN)/python -m vlapipe.schemas.errors_page > docs/errors.md
