# `make serve` and `make test` do all set-up. PYTHON selects the interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: help serve test test-long test-vllm test-fake-gpu pack-gpu test-gpu bench-gpu bench bench-quick chaos soak lint docs lock check-arm64 licences goldens clean

help:  ## List the targets
	@sed -nE 's/^([a-z0-9-]+):.*  ## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

serve: .venv/serve  ## Serve the built-in model, or L2V_MODEL, on port 8080
	$(BIN)/l2v serve

test: .venv/test .venv-clients/installed  ## Run all tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-long: .venv/test  ## Run the tests that `make test` leaves out because they take long
	$(BIN)/python -m pytest -n 2 -m long

GPU_VENVS := $(addprefix .venv-gpu/,lowest highest)

test-fake-gpu: $(GPU_VENVS)  ## Test the CUDA path without a GPU, with the lowest and the highest torch (6 GB of downloads)
	for venv in $^; do $$venv/bin/python -m pytest tests/gpu_fake || exit; done

pack-gpu: .venv/test  ## Pack for a machine with a GPU, torch 2.11, transformers 5.17 and no network what it lacks: into .gpu
	$(BIN)/python -m tests.gpu.packages pack

# On that machine, with the interpreter that has torch. Without a GPU, DEVICE=cpu shows that they work.
GPU_PYTHON ?= python3
DEVICE ?= cuda
ON_GPU = PYTHONPATH=$(CURDIR)/.gpu/site:$(CURDIR) HF_HUB_OFFLINE=1 $(GPU_PYTHON)
GPU_TESTS := tests/gpu $(addprefix tests/,parity/test_parity.py parity/test_modes.py models/test_fp8.py) \
    tests/models/test_attention.py::test_vectors_do_not_depend_on_the_batch \
    tests/models/test_compilation.py::test_compiled_layers_give_the_same_vectors_alone_and_in_a_batch
# Each of these takes minutes; a machine that is lent for ten at a time runs one after the other.
GPU_BENCHES := $(addprefix bench-gpu-,1.3b forward-1.3b 7b http-7b forward-7b)

.gpu/site: $(wildcard .gpu/*/*.whl)
	$(GPU_PYTHON) -m tests.gpu.packages unpack

test-gpu: .gpu/site  ## Test on a GPU: parity, batches, memory that runs out, a lost device, fp8, compiled layers
	$(ON_GPU) -m pytest -W default --device $(DEVICE) $(GPU_TESTS)

bench-gpu: $(GPU_BENCHES)  ## Measure on a GPU: efficiency, other libraries, HTTP, memory, idle time of the host

bench-gpu-1.3b: .gpu/site
	$(ON_GPU) -m bench --shapes 1.3b --rounds 2 --http-workers 1 4 --checkpoints .cache/bench --name cuda-1.3b

bench-gpu-7b: .gpu/site
	$(ON_GPU) -m bench --shapes 7b --rounds 1 --workloads mixed --http-workers --checkpoints .cache/bench --name cuda-7b

bench-gpu-http-7b: .gpu/site
	$(ON_GPU) -m bench --shapes 7b --rounds 1 --workloads queries --http-workers 1 4 --engines "" --checkpoints .cache/bench \
	    --name cuda-7b-http

bench-gpu-forward-%: .gpu/site
	$(ON_GPU) -m bench.forward --shape $* --device $(DEVICE) --checkpoints .cache/bench --name forward-$*

test-vllm: .venv/test .venv-bench/vllm  ## Compare exports with vLLM, in an environment of its own (2 GB)
	$(BIN)/python -m tests.parity.vllm_exports .venv-bench/vllm/bin/python

chaos: .venv/test  ## Test the promises of docs/reliability.md and write the results to it
	$(BIN)/python -m tests.chaos

soak: .venv/test  ## Test the long run: make soak MINUTES=20
	$(BIN)/python -m tests.chaos soak --minutes $(or $(MINUTES),20)

BENCH_VENVS := $(addprefix .venv-bench/,llm2vec sentence-transformers infinity vllm llama-cpp)

bench: .venv/test $(BENCH_VENVS)  ## Compare the speed with other libraries; takes over an hour on two cores
	$(BIN)/python -m bench --checkpoints .cache/bench

bench-quick: .venv/test $(BENCH_VENVS)  ## The same for the smallest shape, within five minutes
	$(BIN)/python -m bench --checkpoints .cache/bench --shapes 135m --workloads mixed --rounds 1 --divisor 4 \
	    --requests 10 --name quick

lint: .venv/test  ## Check style, types and the generated parts of the docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m docs.tables --check
	$(BIN)/python -m docs.pages --check

docs: .venv/test  ## Write the generated parts of the docs, and build the site in build/site
	$(BIN)/python -m docs.tables
	$(BIN)/python -m docs.pages
	$(BIN)/zensical build --strict

PIN = $(BIN)/uv pip compile --quiet --universal --upgrade --generate-hashes --no-annotate --python-version 3.11 \
    --custom-compile-command "make lock"

lock: .venv/test  ## Pin the images' packages, with hashes, to the newest versions that pyproject.toml allows
	$(PIN) --output-file docker/requirements-cuda.txt pyproject.toml
	$(PIN) --torch-backend cpu --constraint docker/requirements-cuda.txt --output-file docker/requirements-cpu.txt pyproject.toml
	$(MAKE) check-arm64

# Resolves for 64-bit Arm without installing or downloading the packages.
ON_ARM64 = $(BIN)/uv pip install --dry-run --no-deps --require-hashes --only-binary :all: \
    --python-platform aarch64-manylinux_2_28 --python-version 3.11 --target build/arm64

check-arm64: .venv/test  ## Check that each pinned package of the images has a wheel for 64-bit Arm
	$(ON_ARM64) -r docker/requirements-cuda.txt
	$(ON_ARM64) --torch-backend cpu -r docker/requirements-cpu.txt

licences:  ## List the licences of the images' packages (downloads about 3 GB)
	$(PYTHON) -m venv --clear .venv-image
	.venv-image/bin/pip install --quiet --require-hashes --only-binary :all: -r docker/requirements-cuda.txt
	.venv-image/bin/python docker/licences.py > docker/licences.md

goldens:  ## Generate the parity stacks and goldens with the reference, in its own venv
	$(PYTHON) -m venv .venv-reference
	.venv-reference/bin/pip install --quiet -r tests/parity/requirements.txt
	.venv-reference/bin/python tests/parity/generate.py

clean:
	rm -rf .venv .venv-bench .venv-clients .venv-gpu .venv-image .venv-reference build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "l2v needs Python 3.11 or later: make PYTHON=python3.12 …"; exit 1; }
	$(PYTHON) -m venv .venv

# Stamp files: reinstall when the dependencies change.
.venv/serve: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --editable .
	@touch $@

# Third-party clients for the tests. They pin older libraries than the service uses.
.venv-clients/installed: tests/clients/requirements.txt
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/pip install --quiet -r $<
	@touch $@

# Each library in the benchmark has its own versions of everything.
.venv-bench/%: bench/requirements/%.txt
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet -r $<
	@touch $@

# What it requires for images and sound is built for other versions of torch, and not needed for texts.
.venv-bench/vllm: bench/requirements/vllm.txt
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet -r $<
	$@/bin/pip uninstall --quiet --yes torchaudio torchcodec torchvision
	@touch $@

# CUDA builds of torch, several gigabytes each.
.venv-gpu/%: tests/gpu_fake/%.txt pyproject.toml
	$(PYTHON) -m venv $@
	$@/bin/pip install --quiet --editable . -r $<
	@touch $@

.venv/test: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --editable '.[test,lint]'
	@touch $@ .venv/serve
