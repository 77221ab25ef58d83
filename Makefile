# Every target prepares what it needs; `make demo` on a fresh clone is enough.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STACK := $(BIN)/python -m include.local_stack
INSTALLED := $(VENV)/.installed
REQUIREMENTS := requirements.txt include/local_stack/requirements.txt tests/requirements.txt
COMPILE = $(BIN)/uv pip compile --universal --python-version 3.11 --no-header --no-annotate -q
SOURCES := plugins include dags tests benchmarks

export PYTHONPATH := $(CURDIR):$(CURDIR)/plugins

# The tests without the whole stack run beside those that need it; their output follows at the end. test-all has a third
# process: the tests that run on both OpenSearch versions.
halves = apart=$$(mktemp); $(BIN)/python -m pytest -m "$(1)not lab" >$$apart 2>&1 & half=$$!; \
	$(BIN)/python -m pytest -m "$(1)lab"; lab=$$?; \
	wait $$half; half=$$?; cat $$apart; rm $$apart; exit $$((lab | half))

.PHONY: help demo run backfill incremental data-prepper up down test test-all test-faults test-distributed fuzz mutation check bench screenshots clean prerequisites constraints reference

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(INSTALLED) ## start the stack, run the passages pipeline (SERVICE=sagemaker|openai|bedrock|cohere), ask
	@$(BIN)/python -m include.local_stack.demo

run: $(INSTALLED) ## start the stack, run the pipeline of a file of include/pipelines/ (PIPELINE=books) to its end
	@$(BIN)/python -m include.local_stack run $(PIPELINE)

backfill: $(INSTALLED) ## start the stack, run the daily pipeline backwards over DAYS=5 days, twice
	@$(BIN)/python -m include.local_stack.backfill

incremental: $(INSTALLED) ## start the stack, run 2,000 passages, change a few, run again: only these are paid for and written
	@$(BIN)/python -m include.local_stack.incremental

data-prepper: $(INSTALLED) ## start the stack, run the OSI sample unchanged but for its placeholders, ask; then rows without a title
	@$(BIN)/python -m include.local_stack.data_prepper

up: $(INSTALLED) ## start the local stack (EXECUTOR=celery, OPENSEARCH_VERSION=2.19.1|3.6.0, OPENSEARCH_NODES=3, SECURITY=on, PORTS=free)
	@$(STACK) up

down: ## stop the local stack
	@test ! -x $(BIN)/python || $(STACK) down

test: $(INSTALLED) ## the tests of one OpenSearch version, at most 10 minutes
	@$(call halves,not slow and )

test-all: $(INSTALLED) check ## check, and all tests but those of test-faults and test-distributed; the quick ones on both OpenSearch versions; at most 60 minutes
	@parts=$$(mktemp -d); \
	$(BIN)/python -m pytest -m "not lab" >$$parts/apart 2>&1 & apart=$$!; \
	OPENSEARCH_VERSIONS=3.6.0,2.19.1 $(BIN)/python -m pytest -m "lab and (each_version or not slow)" >$$parts/both 2>&1 & both=$$!; \
	$(BIN)/python -m pytest -m "lab and slow and not (each_version or faults)"; slow=$$?; \
	wait $$apart; apart=$$?; wait $$both; both=$$?; \
	cat $$parts/*; rm -r $$parts; exit $$((slow | apart | both))

test-faults: $(INSTALLED) ## the slow tests of tests/faults: a stage is killed or refused at each of its steps, at most 40 minutes
	@$(BIN)/python -m pytest -m "slow and faults"

test-distributed: $(INSTALLED) ## faults of several workers, schedulers, triggerers and nodes, at most 30 minutes (make prerequisites EXECUTOR=celery)
	@$(BIN)/python -m pytest -m distributed

fuzz: $(INSTALLED) ## new examples for each parser, SECONDS=60 long: only this package's errors, and no hang
	@$(BIN)/python -m tests.fuzz $(or $(SECONDS),60)

mutation: $(INSTALLED) ## break the core in a sample of places (SEED=1 SAMPLE=200), at most 20 minutes: a test must fail
	@$(BIN)/python -m tests.mutation --seed $(or $(SEED),1) --sample $(or $(SAMPLE),200)

check: $(INSTALLED) ## ruff, mypy, that core/ knows no Airflow, docker-compose.yaml and the Helm values
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m pytest -q tests/compose/test_file.py tests/test_helm.py

bench: $(INSTALLED) ## the benchmarks, as a table
	@$(BIN)/python -m benchmarks

screenshots: $(INSTALLED) ## write README's pictures of the pages anew, to docs/images
	@SCREENSHOTS=docs/images $(BIN)/python -m pytest -m distributed tests/browser/test_screenshots.py

clean: down ## remove the environment, caches and all state of the stack
	rm -rf $(VENV) .cache .local .mypy_cache .ruff_cache .pytest_cache .hypothesis plugins/*.egg-info

prerequisites: $(INSTALLED) ## install what the operating system has to bring, with EXECUTOR=celery also PostgreSQL and Redis (as root, with apt-get)
	@$(STACK) prerequisites

reference: $(INSTALLED) ## write docs/reference/pipeline_reference.md and docs/reference/pipeline.schema.json anew
	$(BIN)/python -m opensearch_batch schema >docs/reference/pipeline.schema.json
	$(BIN)/python -m opensearch_batch schema --markdown >docs/reference/pipeline_reference.md

constraints: $(VENV)/bin/uv ## resolve constraints.txt anew from the requirements files, and requirements.lock with its hashes
	$(COMPILE) $(REQUIREMENTS) -o constraints.txt
	$(COMPILE) --generate-hashes -c constraints.txt $(REQUIREMENTS) -o requirements.lock

$(VENV)/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11+ is needed, $(PYTHON) is older: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || { echo "the venv module is missing: apt-get install -y python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r include/local_stack/uv.txt

$(INSTALLED): $(VENV)/bin/uv $(REQUIREMENTS) requirements.lock pyproject.toml
	@echo "installing the Python packages into $(VENV)"
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	@touch $@
