# `make` alone shows the tasks. ARGS= passes further arguments on: make up ARGS="--port 9000", make test ARGS="-k sse".
.DEFAULT_GOAL := help
.PHONY: help setup up test test-all check format docs bench chaos clean

BACKEND ?=
ARGS ?=
BIN := .venv/bin
SETUP := ops/setup/setup.sh
# Tests mostly wait, so there are more processes than a small machine has processors. One that crashes ends the run: with
# pytest-xdist 3.8 the work it had done would be dealt out again, empty, and the run never end.
PYTEST := $(BIN)/pytest -n 4 --max-worker-restart 0
DATA_DIR := $(or $(INFERFLUX_DATA_DIR),.inferflux)
ALL_PARTS := dev llama torch mlx otel
PARTS ?= $(ALL_PARTS)
# echo needs neither compiler nor weights; what was installed before stays, and is used
UP_PARTS := $(if $(filter echo,$(BACKEND)),,$(or $(filter torch mlx,$(BACKEND)),llama))

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "make %-10s %s\n", $$1, $$2}'

setup: ## Create .venv and install everything, or PARTS="llama", "torch", "mlx", "otel", "dev", with the default model
	@$(SETUP) $(PARTS)

up: ## Serve on this machine; BACKEND=torch or mlx installs that, BACKEND=echo needs no compiler and no model
	@$(SETUP) $(UP_PARTS)
	@exec $(BIN)/inferflux up --data-dir "$(DATA_DIR)" $(if $(BACKEND),--backend $(BACKEND)) $(ARGS)

test: ## Run the tests, with reduced counts
	@$(SETUP) $(ALL_PARTS)
	@exec $(PYTEST) $(ARGS)

test-all: ## Run the tests with full counts
	@$(SETUP) $(ALL_PARTS)
	@exec env INFERFLUX_TEST_COUNTS=full $(PYTEST) $(ARGS)

check: ## Format, lint, types, import directions
	@$(SETUP) dev torch mlx otel # whose types are checked, too
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: ## Format the code and sort the imports
	@$(SETUP) dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: ## Write docs/config.md, docs/cli.md and docs/openapi.json from the code
	@$(SETUP)
	@exec $(BIN)/python -m ops.docs

chaos: ## Strike at parts of a stack at random under load, for 10 minutes; ARGS="--seconds 60 --seed 1"
	@$(SETUP) dev
	@exec $(BIN)/python -m tests.system.chaos $(ARGS)

bench: ## Measure this stack and, when installed, llama-server; tables, and JSON in the data directory
	@$(SETUP) llama
	@exec $(BIN)/python -m ops.bench --out "$(DATA_DIR)/bench" $(ARGS)

clean: ## Remove .venv and the data of `make up`
	rm -rf .venv .inferflux
