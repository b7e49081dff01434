# Tasks for developers. Each installs what it needs. The machine needs only Python >= 3.11 and a package index.
#   make demo            build SmolLM2 at int8 and let it answer a prompt, with only the core installed
#   make locks           resolve conf/toolchain/*.in again; UPGRADE=--upgrade takes the newest versions that fit
#   make test            all tests that need no torch
#   make test-reference  tests that need torch (large): engines of aot_inductor, checkpoints of ModelOpt, logits
#                        compared with transformers, onnxruntime-genai's builder
#   make fuzz            fuzz each parser of foreign bytes, FUZZ_SECONDS (60) per parser
#   make lint            ruff, ruff format --check, mypy --strict, import contracts
#   make bench           compare the speed of engines with those of onnxruntime-genai's builder
#   make bench-store     compare the store with openssl and the disk; BENCH_FLAGS="--gigabytes 1" for a short run
#   make bench-team      compare push and pull of a team store with obstore; BENCH_FLAGS as above
#   make bench-sweep     compare a sweep with a loop of single builds, and time hits; BENCH_FLAGS=hits for hits alone
#   make bench-aot       compare an engine of aot_inductor with eager PyTorch and torch.compile: ENGINE=folder
#   make bench-identity  compare the first and the next plan of a 140 GB model with sha256sum; BENCH_FLAGS as above

PYTHON ?= python3
VENV := .venv
CORE := .venv-core
REFERENCE := .venv-reference
MODELOPT := .venv-modelopt
MODELOPT_TRTLLM := .venv-modelopt-trtllm
OF_MODELOPT := tests/reference/test_modelopt.py tests/reference/test_trtllm_checkpoints.py
FUZZ_SECONDS ?= 60
# One process more than cores, because some tests wait for a cluster or a server.
PYTEST_FLAGS ?= -n $(shell expr 1 + $$(nproc 2>/dev/null || echo 1)) --dist loadgroup

# Tests write and sync many small files: in memory if 12 GB of it are free, else on the disk.
FREE_GB := $(shell df --output=avail -BG /dev/shm 2>/dev/null | tail -1 | tr -dc 0-9)
IN_MEMORY := $(shell test "$(FREE_GB)" -ge 12 2>/dev/null && awk '/MemAvailable/ { exit $$2 < 12e6 }' /proc/meminfo && echo PYTEST_DEBUG_TEMPROOT=/dev/shm)

# Python keeps compiled modules whatever the caller has set: compiling is most of an import.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo locks test test-reference fuzz lint bench bench-store bench-team bench-sweep bench-aot bench-identity clean

demo: $(CORE)/.done
	$(CORE)/bin/trtbuild model=smollm2 quant=int8
	$(CORE)/bin/trtbuild run model=smollm2 quant=int8 prompt="Why is the sky blue?"
	$(CORE)/bin/trtbuild toolchain ls

locks: $(VENV)/.dev
	$(VENV)/bin/trtbuild toolchain lock $(notdir $(basename $(wildcard conf/toolchain/*.in))) $(UPGRADE)

test: $(VENV)/.dev
	$(IN_MEMORY) $(VENV)/bin/python -m pytest $(PYTEST_FLAGS) -m "not reference"

# One thread per test: tests run in parallel, and threads of one test would wait busily for those of another.
test-reference: export OMP_NUM_THREADS := 1
test-reference: $(REFERENCE)/.done $(MODELOPT)/.done $(MODELOPT_TRTLLM)/.done
	$(REFERENCE)/bin/python -m pytest $(PYTEST_FLAGS) -m reference tests/reference $(addprefix --ignore=,$(OF_MODELOPT))
	$(MODELOPT)/bin/python -m pytest $(PYTEST_FLAGS) -m reference $(OF_MODELOPT)

fuzz: $(VENV)/.dev
	@set -e; for target in $$($(VENV)/bin/python -m tests.fuzz.names); do \
	  $(VENV)/bin/python -m tests.fuzz $$target build/fuzz/$$target -max_total_time=$(FUZZ_SECONDS); \
	done

lint: $(VENV)/.dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	PYTHONPATH=store $(VENV)/bin/lint-imports --no-cache --no-logo

bench: $(VENV)/.dev $(REFERENCE)/.done
	$(VENV)/bin/python bench/engine_speed.py --builder-python $(REFERENCE)/bin/python

bench-store: $(VENV)/.dev
	$(VENV)/bin/python bench/store_speed.py $(BENCH_FLAGS)

bench-team: $(VENV)/.dev
	$(VENV)/bin/python bench/team_speed.py $(BENCH_FLAGS)

bench-sweep: $(VENV)/.dev
	$(VENV)/bin/python bench/sweep_speed.py $(BENCH_FLAGS)

bench-aot: $(REFERENCE)/.done
	$(REFERENCE)/bin/python bench/aot_speed.py $(ENGINE) $(BENCH_FLAGS)

bench-identity: $(VENV)/.dev
	$(VENV)/bin/python bench/identity_speed.py $(BENCH_FLAGS)

# Create an environment with uv if it is installed, else with venv and pip.
define environment
	if command -v uv >/dev/null 2>&1; then \
	  test -x $(1)/bin/python || uv venv --quiet --python $(PYTHON) $(1); \
	  VIRTUAL_ENV=$(CURDIR)/$(1) uv pip install --quiet -e '.$(if $(2),[$(2)])' $(3); \
	else \
	  test -x $(1)/bin/python || $(PYTHON) -m venv $(1); \
	  $(1)/bin/python -m pip install --quiet --disable-pip-version-check -e '.$(if $(2),[$(2)])' $(3); \
	fi
endef

# The core alone: trtbuild itself installs the toolchains of the demo.
$(CORE)/.done: pyproject.toml
	@$(call environment,$(CORE),)
	@touch $@

$(VENV)/.dev: pyproject.toml
	@$(call environment,$(VENV),onnxruntime$(comma)tensorrt-rtx$(comma)dev)
	@touch $@

$(REFERENCE)/.done: pyproject.toml
	@$(call environment,$(REFERENCE),onnxruntime$(comma)genai$(comma)aot-inductor$(comma)pytest)
	@touch $@

# Separate, because ModelOpt needs an older transformers, which needs an older tokenizers. onnx reads the networks.
$(MODELOPT)/.done: pyproject.toml
	@$(call environment,$(MODELOPT),modelopt$(comma)pytest,onnx==1.23.1)
	@touch $@

# Exactly the toolchain's lock, because its transformers needs an older huggingface_hub than trtbuild itself.
$(MODELOPT_TRTLLM)/.done: conf/toolchain/modelopt_trtllm.txt
	@if command -v uv >/dev/null 2>&1; then \
	  test -x $(MODELOPT_TRTLLM)/bin/python || uv venv --quiet --python $(PYTHON) $(MODELOPT_TRTLLM); \
	  VIRTUAL_ENV=$(CURDIR)/$(MODELOPT_TRTLLM) uv pip install --quiet --require-hashes -r $<; \
	else \
	  test -x $(MODELOPT_TRTLLM)/bin/python || $(PYTHON) -m venv $(MODELOPT_TRTLLM); \
	  $(MODELOPT_TRTLLM)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<; \
	fi
	@touch $@

comma := ,

clean:
	rm -rf $(VENV) $(CORE) $(REFERENCE) $(MODELOPT) $(MODELOPT_TRTLLM) build dist .mypy_cache .pytest_cache .ruff_cache
