# Every target makes .venv first; a second run starts at once.
# make PYTHON=/path/to/python3.12 chooses another interpreter for .venv.
PYTHON ?=
PAYLOADS ?= ../shared/data/github-webhooks
BIN := .venv/bin
STAMP := .venv/.setup-done

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full lint type format proto proto-baseline docs lock bench soak clean

help:  ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

setup: $(STAMP)  ## .venv from requirements.lock
$(STAMP): requirements.lock pyproject.toml tools/setup.sh
	@sh tools/setup.sh $(PYTHON)

demo: $(STAMP)  ## webhooks in, files out, in under a minute
	@$(BIN)/relayfile demo $(if $(wildcard $(PAYLOADS)),--payloads $(PAYLOADS))

# Two at a time: half of the time of the tests of whole systems is waiting for windows to close and processes to start.
test: lint type  ## lint, types and every test of a normal change
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not full and not soak and not alone"
	@$(BIN)/python -m pytest -m "alone and not full and not soak"

test-full: $(STAMP)  ## the long tests
	@$(BIN)/python -m pytest -m full

lint: $(STAMP)  ## ruff, import contracts, buf
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/python tools/proto.py check

type: $(STAMP)  ## mypy --strict
	@$(BIN)/mypy

format: $(STAMP)  ## rewrite in the house format
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

proto: $(STAMP)  ## generate relayfile/v1 from proto/
	@$(BIN)/python tools/proto.py generate

proto-baseline: $(STAMP)  ## accept the current API as what `buf breaking` compares with (needs a CHANGELOG line)
	@$(BIN)/python tools/proto.py baseline

docs: $(STAMP)  ## write the generated pages of docs/
	@$(BIN)/python -m tools.docs write

bench: $(STAMP)  ## benchmarks, one JSON line each
	@$(BIN)/python -m tests.bench

soak: $(STAMP)  ## the tests that run for half an hour and more (SOAK_MINUTES)
	@$(BIN)/python -m pytest -m soak --timeout=0

lock: $(STAMP)  ## resolve requirements.lock anew from pyproject.toml
	@sh tools/lock.sh

clean:  ## remove what the targets made
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
