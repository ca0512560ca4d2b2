# Every target works in a fresh clone: it makes the environment that it needs in .venv.
# PYTHON=python3.12 chooses the Python; ARGS=... is passed on to test, bench, chaos and demo.

PYTHON ?= python3
ARGS ?=
# How long chaos publishes; it takes a minute more until everything has ended.
MINUTES ?= 5
# What runs pytest; .ci/run measures coverage by putting `coverage run -m` here.
UNDER ?=

# An environment belongs to one Python: another one makes it anew.
MADE_WITH := $(subst /,-,$(PYTHON))
PROJECT := .venv/.project-$(MADE_WITH)
TOOLS := .venv/.tools-$(MADE_WITH)

.DEFAULT_GOAL := help
.PHONY: help demo test lint types bench hostile chaos prove venv clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' Makefile

demo: $(PROJECT) ## broker, workers and real tasks, to look at
	@.venv/bin/chervil demo $(ARGS)

test: $(TOOLS) ## everything in tests/
	@.venv/bin/python -m $(UNDER) pytest $(ARGS)

lint: $(TOOLS) ## ruff: rules and format
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

types: $(TOOLS) ## mypy --strict and pyright
	@.venv/bin/mypy
	@.venv/bin/pyright --pythonpath .venv/bin/python

hostile: $(TOOLS) ## what hostile networks cost, and whom
	@.venv/bin/python -m benchmarks.hostile $(ARGS)

bench: $(PROJECT) ## every figure, in memory and durable, beside the limits of the same run
	@.venv/bin/python -m benchmarks $(ARGS)

chaos: $(PROJECT) ## MINUTES=5 of tasks under kills and cuts; the checker's verdict
	@.venv/bin/python -m tests.faults.chaos --minutes $(MINUTES) $(ARGS)

prove: $(TOOLS) ## what takes its time: real graces, machines cut off (40 minutes), every damage of a journal, chaos
	@env -u CI .venv/bin/python -m pytest tests/e2e/test_sessions.py tests/e2e/test_deaths.py $(ARGS)
	@CHERVIL_PROVE=1 .venv/bin/python -m pytest -s tests/machines $(ARGS)
	@CHERVIL_PROVE=1 .venv/bin/python -m pytest tests/broker/journal tests/e2e/test_disk.py $(ARGS)
	@.venv/bin/python -m tests.faults.chaos

venv: $(TOOLS) ## the environment alone, for an editor

clean: ## removes the environment and what tools have left
	@rm -rf .venv build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(PROJECT): pyproject.toml scripts/venv.sh
	@scripts/venv.sh "$(PYTHON)"
	@touch $@

$(TOOLS): $(PROJECT)
	@scripts/venv.sh "$(PYTHON)" dev
	@touch $@
