# nearer: what can be made here. `make` alone lists the targets.

PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Where torch's CPU build comes from when the configured package index does not have it. (Empty, for the image: it has.)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# The image: its name, what it is built on (default: the Dockerfile's), cpu or cuda, and further options of the builder,
# such as --secret id=pipconf,src=pip.conf for a package index of one's own.
FLAVOUR ?= cpu
IMAGE ?= nearer:$(VERSION)$(if $(filter cuda,$(FLAVOUR)),-cuda)
BASE_IMAGE ?=
IMAGE_FLAGS ?=
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
BUILDER ?= $(eval BUILDER := $(shell for tool in podman docker buildah; do $$tool info >/dev/null 2>&1 && echo $$tool && break; done))$(BUILDER)
# Tests say what they say with one thread a process: small models lose time to more.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_DISABLE_TELEMETRY=1

# The packages are installed without byte code, which halves the set-up: what is imported is compiled once, if it may be.
# (Where this is set, as in many containers, sentence-transformers takes three times as long to import, at every start.)
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full e2e check format schema golden bench image lock clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 12

setup: $(STAMP) ## make .venv with the versions that were tested

$(STAMP): docker/requirements-cpu.txt tests/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@grep -A9 -E '^torch==' docker/requirements-cpu.txt | awk 'NR>1 && !/--hash/ {exit} {print}' | sed '$$ s/ *\\$$//' > $(VENV)/torch.txt
	$(BIN)/pip install --quiet --no-compile --no-deps --require-hashes -r $(VENV)/torch.txt 2>$(VENV)/torch.log \
	  || $(BIN)/pip install --quiet --no-compile --no-deps --require-hashes -r $(VENV)/torch.txt --index-url $(TORCH_INDEX)
	$(BIN)/pip install --quiet --no-compile --no-deps --require-hashes -r docker/requirements-cpu.txt -r tests/requirements.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup ## the whole pipeline on a sample corpus, before and after, on CPU
	$(BIN)/python -m nearer.demo

test: setup ## what CI runs: every test but the exhaustive ones
	$(TEST_ENV) $(BIN)/python -m pytest -m "not full" --numprocesses=2 --dist=worksteal

test-full: setup ## the exhaustive suites as well, each printing what it covered
	$(TEST_ENV) $(BIN)/python -m pytest --capture=tee-sys --timeout=3600

e2e: setup ## against the cluster of KUBECONFIG (NEARER_TEST_VALUES=values for it)
	$(TEST_ENV) $(BIN)/python -m pytest tests/e2e/test_cluster.py

check: setup ## format, lint, types, architecture
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## let ruff put the code in order
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

schema: setup ## the settings' part of the chart's schema, from the models
	$(BIN)/python -m nearer.cluster.schema

golden: setup ## write anew what the job files render to (then read the difference)
	UPDATE_GOLDEN=1 $(BIN)/python -m pytest -q tests/chart/test_chart_jobs.py -k golden

bench: setup ## benchmarks against named peers (KOREAN_HELP=path/to/documents.jsonl)
	$(BIN)/python tests/bench/s3.py
	$(BIN)/python tests/bench/eval.py
	$(BIN)/python tests/bench/mining.py $(KOREAN_HELP)
	$(BIN)/python tests/bench/train.py $(KOREAN_HELP)
	$(BIN)/python tests/bench/korean_help.py $(KOREAN_HELP)

image: ## build the image with podman, docker or buildah (FLAVOUR, IMAGE, BASE_IMAGE), and print its layers
	@test -n "$(BUILDER)" || { echo "neither podman nor docker nor buildah works here" >&2; exit 2; }
	$(BUILDER) build -f docker/Dockerfile -t $(IMAGE) \
	  --build-arg FLAVOUR=$(FLAVOUR) $(if $(BASE_IMAGE),--build-arg BASE_IMAGE=$(BASE_IMAGE)) \
	  --build-arg TORCH_INDEX=$(TORCH_INDEX) \
	  --build-arg VERSION=$(VERSION) --build-arg REVISION=$(shell git rev-parse HEAD 2>/dev/null) \
	  $(IMAGE_FLAGS) .
	@$(if $(filter buildah,$(BUILDER)),buildah images $(IMAGE),$(BUILDER) history --format 'table {{.Size}}\t{{.CreatedBy}}' $(IMAGE))

lock: setup ## resolve the frozen requirements anew (needs uv on PATH)
	uv pip compile pyproject.toml --extra train --extra lora --extra onnx --extra llm --extra report --extra fast --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-header --no-annotate --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	  $(if $(TORCH_FIND_LINKS),--find-links $(TORCH_FIND_LINKS)) -o docker/requirements-cpu.txt
	sed -E 's/\+cpu//; s/ \\$$//; /--hash/d' docker/requirements-cpu.txt > $(VENV)/versions.txt
	uv pip compile pyproject.toml --extra train --extra lora --extra onnx --extra llm --extra report --extra fast --extra deepspeed -c $(VENV)/versions.txt --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 -o docker/requirements-cuda.txt
	uv pip compile --group dev -c docker/requirements-cpu.txt --generate-hashes $(if $(TORCH_FIND_LINKS),--find-links $(TORCH_FIND_LINKS)) \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 -o tests/requirements.txt
	echo 'hatchling>=1.27' | uv pip compile - -c tests/requirements.txt --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header --no-annotate --python-version 3.11 \
	  --python-platform x86_64-manylinux_2_28 -o docker/requirements-build.txt

clean: ## remove what the demo made
	rm -rf demo-run
