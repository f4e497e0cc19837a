# What a machine needs: Python 3.11 or newer, git and make. All else goes into .venv of this folder.
.DEFAULT_GOAL := help
.PHONY: help new test test-all test-rest test-cloud lint format fleet release bench clean
# Two suites at once would only be in each other's way.
.NOTPARALLEL:

# Where `make new` puts the workspace: beside this folder, unless told otherwise.
OUT ?= ..
# Answers for `make new`, e.g. ARGS='project_name="Support API" license=Apache-2.0'
ARGS ?=
# Options for pytest, e.g. PYTEST_ARGS='-k autogenerate'
PYTEST_ARGS ?=

python := .venv/bin/python
pytest = $(python) -m pytest --numprocesses 2
# uv trusts the certificates that the machine trusts, as pip, git and the browser do.
export UV_SYSTEM_CERTS ?= true

help: ## Show what there is to do
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

.venv/.bake .venv/.dev: pyproject.toml scripts/prepare.sh
	@sh scripts/prepare.sh $(@:.venv/.%=%)
	@touch $@

new: .venv/.bake ## Make a workspace: asks at a terminal, else takes the defaults [OUT=folder] [ARGS='question=answer ...']
	@if [ -t 0 ] && [ -t 1 ]; then input=; else input=--no-input; fi; \
	mkdir -p "$$OUT" && \
	UV="$$PWD/.venv/bin/uv" $(python) -m cookiecutter $$input . -o "$$OUT" $(value ARGS)
new: export OUT := $(OUT)

test: .venv/.dev ## Run the quick tests, at least one for everything that is promised [PYTEST_ARGS='-k autogenerate']
	@$(pytest) --dist worksteal -m "not full and not cloud" $(PYTEST_ARGS)

test-all: test test-rest test-cloud ## Run all tests, each once

test-rest: .venv/.dev
	@$(pytest) --dist worksteal -m "full and not cloud" $(PYTEST_ARGS)

test-cloud: .venv/.dev
	@$(pytest) --dist loadfile -m cloud $(PYTEST_ARGS)

lint: .venv/.dev ## Check style and types of the template's own Python
	@$(python) -m ruff check . && $(python) -m ruff format --check . && $(python) -m mypy

format: .venv/.dev ## Format the template's own Python
	@$(python) -m ruff check --fix . && $(python) -m ruff format .

fleet: .venv/.bake ## Show how services stand to this template; changes nothing [REPOS="folder ..."] [ARGS='--format json']
	@$(python) scripts/fleet.py $(REPOS) $(ARGS)

release: .venv/.bake ## Set date and versions of a release, and tell the commands that make it [VERSION=0.2.0]
	@$(python) scripts/release.py $(VERSION)

bench: .venv/.dev ## Measure how long a bake and its parts take
	@$(python) benchmarks/run.py

clean: ## Remove what make has installed here
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build
