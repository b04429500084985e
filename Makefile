# `make bench` and `make test` work in a fresh clone: each sets up .venv by itself.
# `PY=python3 make gpu-check`: an interpreter that has what is needed; nothing is installed.
PYTHON ?= python3
VENV   := .venv
READY  := $(if $(PY),,$(VENV)/.installed)
PY     ?= $(VENV)/bin/python
SUITE  ?= auto
MODEL  ?=
ARGS   ?=
PART   ?= 1/1
PLANS  ?= results/local/calibrate/plans
POLICY ?= results/local/policy/trained
# In two processes; ARGS="-n 0 tests/test_cache.py" in this one.
PYTEST := $(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder
# WORKERS=8: on Ray, with so many workers; with RAY_ADDRESS on that cluster.
PLACE  := $(if $(WORKERS),--on ray --workers $(WORKERS))
# Each suite is a target too: `make ablations MODEL=…`; those with a command of their own have a target below.
FILES  := $(wildcard bench/suites/*.yaml)
SUITES := $(basename $(notdir $(filter-out $(shell grep -l '^command:' $(FILES)),$(FILES))))

.DEFAULT_GOAL := help
.PHONY: help setup bench report publish generate reproduce signals prompt-length generality families tune calibrate policy control $(SUITES)
.PHONY: gpu-check asv asv-html asv-compare asv-check browser test test-all test-slow torture torture-cluster scaling mutants lint clean

help:  ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s  %s\n", $$1, $$2}'
	@echo "  Each suite is a target too, as make bench SUITE=…:" && echo "  $(SUITES)" | fold -s -w 100

setup: $(READY)  ## Make .venv and install everything, as constraints.txt pins it.

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[bench,dev]'
	touch $@

bench: setup  ## Run the suite that fits this machine (or SUITE=, WORKERS=), and report it.
	$(PY) -m bench run $(SUITE) $(if $(MODEL),--model $(MODEL)) $(if $(PROMPTS),--prompts $(PROMPTS)) $(PLACE) $(ARGS)

$(SUITES): setup
	$(PY) -m bench run $@ $(if $(MODEL),--model $(MODEL)) $(if $(PROMPTS),--prompts $(PROMPTS)) $(PLACE) $(ARGS)

report: setup  ## Write the report of SUITE again from the records of this machine.
	$(PY) -m bench report $(SUITE) $(ARGS)

publish: setup  ## Move the records and the report of SUITE to what is committed (or SUITE=all).
	$(PY) -m bench publish $(SUITE) $(ARGS)

generate: setup  ## Write images and a grid of them (ARGS="--dqar recommended" with reuse).
	$(PY) -m bench generate $(if $(MODEL),--model $(MODEL)) $(if $(PROMPTS),--prompts $(PROMPTS)) $(ARGS)

reproduce: setup  ## Show the published tables next to what is measured here.
	$(PY) -m bench reproduce $(if $(MODEL),--model $(MODEL)) $(if $(PROMPTS),--prompts $(PROMPTS)) $(ARGS)

signals: setup  ## Measure how well entropy and SNR predict the reuse error.
	$(PY) -m bench signals $(if $(MODEL),--model $(MODEL)) $(if $(PROMPTS),--prompts $(PROMPTS)) $(ARGS)

prompt-length: setup  ## Measure whether entropy or the reuse error depends on a prompt's length.
	$(PY) -m bench prompt-length $(if $(MODEL),--model $(MODEL)) $(if $(PROMPTS),--prompts $(PROMPTS)) $(ARGS)

generality: setup  ## Measure which findings hold on both models that ship; nothing is timed.
	$(PY) -m bench generality $(if $(MODEL),--model $(MODEL)) $(ARGS)

families: setup  ## Check DQAR on every transformer class of diffusers and on tiny pipelines.
	$(PY) -m bench families $(ARGS)

tune: setup  ## Search DQAR's fields for the Pareto front of speedup and drift.
	$(PY) -m bench tune $(if $(MODEL),--model $(MODEL)) $(if $(PROMPTS),--prompts $(PROMPTS)) $(ARGS)

calibrate: setup  ## Search for plans, and write them to PLANS (ARGS="--target baseline").
	$(PY) -m bench calibrate --out $(PLANS) $(if $(MODEL),--model $(MODEL)) $(if $(PROMPTS),--prompts $(PROMPTS)) $(ARGS)

policy: setup  ## Trace the model, train a policy into POLICY, and compare it at equal reuse.
	$(PY) -m bench policy trace $(if $(MODEL),--model $(MODEL)) $(if $(PROMPTS),--prompts $(PROMPTS))
	$(PY) -m bench policy train --out $(POLICY)
	$(PY) -m bench policy eval --policy $(POLICY) $(if $(MODEL),--model $(MODEL)) $(if $(PROMPTS),--prompts $(PROMPTS)) $(ARGS)

control: setup  ## Time the baseline against itself, and count how often the interval holds 1.
	$(PY) -m bench control $(if $(MODEL),--model $(MODEL)) $(if $(PROMPTS),--prompts $(PROMPTS)) $(ARGS)

gpu-check: setup  ## Check the goals that need a CUDA device, in six minutes (ARGS=--toy: on a CPU).
	$(PY) -m bench gpu-check $(ARGS)

asv: setup  ## Run the regression benchmarks of this commit, and store their samples.
	$(PY) -m bench asv run $(ARGS)

asv-html: setup  ## Write pages of the stored samples to reports/local/asv.
	$(PY) -m bench asv html

# make itself exits 2 whatever failed; where the code counts, call the command: 1 a regression, 2 inconclusive.
asv-compare: setup  ## Compare BASE=commit with this one; fail on a regression, or if inconclusive.
	$(PY) -m bench asv compare $(BASE)

asv-check: setup  ## Check that unchanged code raises no alarm and a planted slowdown does.
	$(PY) -m bench asv check $(ARGS)

browser:  ## Install the browser in which a test opens asv's pages (on Debian, as root).
	command -v chromium >/dev/null || (apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium)

test: setup  ## Run the tests of every day (ARGS="-n 0 tests/test_cache.py": of one file).
	$(PYTEST) -m "not slow" $(ARGS)

test-all: setup  ## Run all tests, the slow ones too.
	$(PYTEST) $(ARGS)

test-slow: setup  ## Run the slow tests alone (PART=2/8: the second eighth of them).
	$(PYTEST) -m slow --part $(PART) $(ARGS)

torture: setup  ## Kill, corrupt and fuzz the command line a thousand times, in half an hour.
	$(PY) tests/torture/run.py $(ARGS)

torture-cluster: setup  ## Kill workers, drivers and a node of a Ray cluster, and compare the records.
	$(PY) tests/torture/cluster.py $(ARGS)

scaling: setup  ## Measure what Ray costs, and project them on large clusters.
	$(PY) -m bench scaling $(ARGS)

mutants: setup  ## Plant small faults, and count those that no test notices, in an hour.
	$(PY) tests/mutants.py $(ARGS)

lint: setup  ## Check style, types and spelling.
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	git ls-files -z | xargs -0 $(PY) -m codespell_lib

clean:  ## Remove .venv and caches; records and reports stay.
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .mutants
