# `make demo` and `make test` are the only two commands a fresh machine needs.
# Another Python gets a folder of its own: PYTHON=python3.12 make test uses .venv-3.12.
ifeq ($(origin PYTHON),undefined)
PYTHON := python3
NEWEST = $(or $(shell .ci/newest-python),$(PYTHON))
FOLDER = .venv
else
NEWEST = $(PYTHON)
FOLDER = .venv-$(VERSION)
endif
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
OLDEST := $(shell sed -n 's/^requires-python = ">=\([0-9.]*\).*/\1/p' pyproject.toml)
VENV := $(FOLDER)
BIN := $(VENV)/bin
CORE := .venv-core-$(VERSION)
DEMO ?= demo
SITE ?= site
ALL := train,tensorboard,lora,vla,serve,eval,export,report,store,docs,dev
EXTRAS ?= dev

PIP := install --quiet --disable-pip-version-check
PINNED := -c constraints.txt
FAST_TESTS := -m "not slow" -n 3 --hypothesis-profile=repeatable
# What depends on the Python: schemas, reading tables and containers, shards, and ingest as a whole.
CORE_TESTS := $(FAST_TESTS) tests/schemas $(addprefix tests/pipeline/,read/csv read/containers shards test_ingest.py)
# What mypy can check where torch is not installed.
CORE_TYPES := --follow-imports=silent -p vlapipe.schemas -p vlapipe.pipeline

.DEFAULT_GOAL := help
.PHONY: help setup demo lint types test test-core test-newest try-newest test-all bench gpu docs site readme pins

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Installs into the folder $(1) the extras $(2), with pip's options $(3). setuptools comes first, so that it is pinned
# as the rest is: pip fetches the newest where it builds by itself.
define install
	@test -d $(1) || $(PYTHON) -m venv $(1)
	@echo "installing vlapipe and its tools into $(1) (once; a few minutes)"
	@$(1)/bin/pip $(PIP) $(3) 'setuptools>=77'
	@$(1)/bin/pip $(PIP) $(3) --no-build-isolation -e '.[$(2)]'
	@touch $(1)/.installed
endef

$(VENV)/.installed: pyproject.toml setup.cfg constraints.txt
	$(call install,$(VENV),$(ALL),$(PINNED))

$(CORE)/.installed: pyproject.toml setup.cfg constraints.txt
	$(call install,$(CORE),dev,$(PINNED))

setup: $(VENV)/.installed  ## make .venv and install everything

demo: setup  ## raw demo data -> dataset -> report -> a policy in training, in a few minutes on a CPU
	@PATH="$(CURDIR)/$(BIN):$$PATH" BIN=$(BIN) bash docs/demo.sh $(DEMO)

lint: setup  ## ruff: style and mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup  ## mypy, strict
	$(BIN)/mypy

test: lint types  ## lint, types and the tests that take minutes; CI runs it first
	$(BIN)/pytest $(FAST_TESTS)

test-core: $(CORE)/.installed  ## tests of reading, checking and shards, without torch; CI runs it on the newest Python
	$(CORE)/bin/pytest $(CORE_TESTS)

test-newest:  ## the same with the newest release of everything on the newest Python; EXTRAS=train,dev adds torch
	$(MAKE) --no-print-directory try-newest PYTHON=$(NEWEST) EXTRAS=$(EXTRAS)

try-newest:
	$(call install,.venv-newest-$(VERSION),$(EXTRAS),--upgrade --upgrade-strategy eager)
	.venv-newest-$(VERSION)/bin/ruff check .
	.venv-newest-$(VERSION)/bin/mypy $(if $(findstring train,$(EXTRAS)),,$(CORE_TYPES))
	.venv-newest-$(VERSION)/bin/pytest $(FAST_TESTS)

test-all: setup  ## every test, the long ones too
	$(BIN)/pytest

bench: setup  ## every benchmark; one JSON line a case
	@for f in benchmarks/bench_*.py; do echo "# $$f" >&2; $(BIN)/python $$f || exit 1; done

# With BIN=FOLDER nothing is installed: the packages are those of that environment.
gpu: $(if $(filter command line,$(origin BIN)),,setup)  ## gpu tests, the trainer's benchmarks and the guide's table, on a machine with an NVIDIA GPU
	@$(BIN)/python -c 'import torch; torch.cuda.is_available() or exit("make gpu: no NVIDIA GPU that torch can use")'
	PYTHONPATH=src $(BIN)/python -m pytest -m gpu
	PYTHONPATH=src $(BIN)/python benchmarks/bench_train.py --out benchmarks/results/train.jsonl
	PYTHONPATH=src $(BIN)/python benchmarks/bench_guide.py --out benchmarks/results/guide.jsonl
	PYTHONPATH=src $(BIN)/python benchmarks/guide_table.py --write
	PYTHONPATH=src $(BIN)/python benchmarks/bench_vla.py --out benchmarks/results/vla.jsonl

docs: setup  ## write docs/errors.md from the code
	$(BIN)/python -m vlapipe.schemas.errors_page > docs/errors.md

# With BIN=FOLDER as above; SITE is where it is written.
site: $(if $(filter command line,$(origin BIN)),,setup)  ## the docs as a searchable site, in site/: open site/index.html
	@$(BIN)/python -m sphinx -q -a -E -n -W --keep-going -c docs -d $(SITE)/.doctrees . $(SITE)
	@echo "open $(SITE)/index.html"

readme: setup  ## run the demo and put what it prints into README.md
	$(BIN)/python docs/check_readme.py --write

pins:  ## write constraints.txt: the newest release of everything, for each Python
	@test -d .venv-pins || $(PYTHON) -m venv .venv-pins
	@.venv-pins/bin/pip $(PIP) --upgrade uv
	@.venv-pins/bin/uv pip compile --quiet --universal --no-annotate --upgrade --python-version $(OLDEST) --extra train --extra lora --extra tensorboard --extra vla --extra serve --extra eval --extra export --extra report --extra docs --extra dev \
	  -c constraints.in --custom-compile-command 'make pins' -o constraints.txt pyproject.toml > /dev/null
