.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
UV := tools/uv
RUN := $(UV) run --locked
# What is set for one task here must not reach the tasks of generated projects.
unexport ARGS OUT TASK
# The tests start Python hundreds of times: without its bytecode each would compile all libraries.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help:  ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo:  ## Generate a project, run its pipeline, serve the model and ask it (TASK=regression, OUT=folder)
	$(RUN) python tools/demo.py $(if $(TASK),--task $(TASK)) $(if $(OUT),--out $(OUT))

.PHONY: test
test: check test-fast test-slow  ## Run everything: checks, fast tests, then generated projects end to end

.PHONY: test-fast
test-fast:  ## Run the tests that take seconds
	$(RUN) pytest -m "not slow" --numprocesses auto --cov $(ARGS)

.PHONY: test-slow
test-slow:  ## Run the tests that install and run generated projects
	$(RUN) pytest -m slow --numprocesses auto --dist loadgroup $(ARGS)

.PHONY: check
check:  ## Lint, format and type-check the template's own code
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) lint-imports
	$(RUN) python tools/engine_manifest.py --check
	$(RUN) shellcheck tools/uv .ci/run

.PHONY: format
format:  ## Format the template's own code
	$(RUN) ruff check --fix-only
	$(RUN) ruff format
	$(RUN) python tools/engine_manifest.py

.PHONY: sample-data
sample-data:  ## Make the example data anew
	$(RUN) python tools/make_sample_data.py

.PHONY: benchmark
benchmark:  ## Measure the serving alternatives side by side
	$(RUN) python tools/benchmark_serving.py $(ARGS)

.PHONY: mutation
mutation:  ## Change a module in one place after the other, see what no test sees (ARGS=gate/measured.py)
	$(RUN) --group mutation python tools/mutation.py $(ARGS)

.PHONY: mutation-modules
mutation-modules:  ## List the modules for that
	@python3 tools/mutation.py --list

.PHONY: timings
timings:  ## Time the generated project's pipeline workflow, job by job
	$(RUN) python tools/time_pipeline.py
