# `make` alone shows the tasks. ARGS= passes further arguments on: make up ARGS="--port 9000", make test ARGS="-k sse".
.DEFAULT_GOAL := help
.PHONY: help setup up test test-all check format docs bench chaos clean

BACKEND ?=
ARGS ?=
BIN := .venv/bin
SETUP := ops/setup/setup.sh
DATA_DIR := $(or $(INFERFLUX_DATA_DIR),.inferflux)
# echo needs neither compiler nor weights
UP_PARTS := $(if $(filter echo,$(BACKEND)),,llama)

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "make %-10s %s\n", $$1, $$2}'

setup: ## Create .venv and install everything, llama.cpp and the default model included
	@$(SETUP) dev llama

up: ## Serve on this machine; BACKEND=echo needs no compiler and no model
	@$(SETUP) $(UP_PARTS)
	@exec $(BIN)/inferflux up --data-dir "$(DATA_DIR)" $(if $(BACKEND),--backend $(BACKEND)) $(ARGS)

test: ## Run the tests, with reduced counts
	@$(SETUP) dev llama
	@exec $(BIN)/pytest $(ARGS)

test-all: ## Run the tests with full counts
	@$(SETUP) dev llama
	@exec env INFERFLUX_TEST_COUNTS=full $(BIN)/pytest $(ARGS)

check: ## Format, lint, types, import directions
	@$(SETUP) dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: ## Format the code and sort the imports
	@$(SETUP) dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: ## Write docs/config.md and docs/cli.md from the code
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
