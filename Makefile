# `make bench` and `make test` work in a fresh clone: each sets up .venv by itself.
PYTHON ?= python3
VENV   := .venv
PY     := $(VENV)/bin/python
SUITE  ?= auto
MODEL  ?=
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help setup bench reproduce signals control asv asv-html asv-compare test lint report clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.installed  ## Make .venv and install everything, pinned by constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[bench,dev]'
	touch $@

bench: setup  ## Run the suite that fits this machine (or SUITE=name MODEL=path) and write its report
	$(PY) -m bench run $(SUITE) $(if $(MODEL),--model $(MODEL)) $(ARGS)

report: setup  ## Write the report of SUITE again from its records
	$(PY) -m bench report $(SUITE)

reproduce: setup  ## The seed's published tables, published beside measured
	$(PY) -m bench reproduce $(if $(MODEL),--model $(MODEL)) $(ARGS)

signals: setup  ## What entropy and SNR know of the error that reuse makes
	$(PY) -m bench signals $(if $(MODEL),--model $(MODEL)) $(ARGS)

control: setup  ## The baseline against itself, forty times: does the 95 % interval hold?
	$(PY) -m bench control $(ARGS)

asv: setup  ## Run the regression benchmarks on this commit and store their samples
	$(PY) -m bench asv run $(ARGS)

asv-html: setup  ## Publish what is stored as pages under reports/asv
	$(PY) -m bench asv html

asv-compare: setup  ## Compare BASE=commit with this one: 1 a regression, 2 cannot say
	$(PY) -m bench asv compare $(BASE)

test: setup  ## Run the tests
	$(PY) -m pytest -q $(ARGS)

lint: setup  ## Check style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

clean:  ## Remove .venv and caches (records and reports stay)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
