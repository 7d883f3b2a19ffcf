# Two commands are enough: `make book` renders the book, `make test` runs every test and every notebook.
# Each makes its own environment in .venv if there is none. `make help` lists the rest.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

SCALE ?= ci
VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)

BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.installed
TOOLS := book/_build_tools
SRC := build/src
NOTEBOOKS := $(sort $(wildcard notebooks/*.ipynb))
EXECUTED := $(NOTEBOOKS:%=$(SRC)/%)
LIBRARY := $(shell find klnorm_lib -type f -not -path '*/__pycache__/*' -not -name '*.lock')

ENGINE ?= local
JOBS ?= 2
WORKERS ?= 2
STUDIES := $(basename $(notdir $(wildcard klnorm_lib/studies/*.yaml)))

# Threads of torch and of numpy's BLAS spin while they wait, which stalls a busy machine; BLAS has no switch for that.
export OMP_WAIT_POLICY := PASSIVE
export OPENBLAS_NUM_THREADS := 1
# Nothing here may reach a model hub.
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1
export HF_DATASETS_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
export JUPYTER_PREFER_ENV_PATH := 1
export PYDEVD_DISABLE_FILE_VALIDATION := 1
export PYTHONUNBUFFERED := 1

.PHONY: help book test clients study bench matrix lint colab-test environment-test repo-url clean FORCE

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-17s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; install one, or say where it is: make PYTHON=/path/to/python"; exit 1; }
	@echo "== environment: $(VENV) with $$($(PYTHON) --version); the first time this takes a few minutes"
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --disable-pip-version-check -c constraints.txt -e ".[book,test]"
	@touch $@

# The scale is part of what a page shows, so a new scale executes every notebook again.
build/scale: FORCE
	@mkdir -p build && { [ "$$(cat $@ 2>/dev/null)" = "$(SCALE)" ] || echo "$(SCALE)" > $@; }

$(SRC)/notebooks/%.ipynb: notebooks/%.ipynb $(LIBRARY) $(STAMP) build/scale $(TOOLS)/execute.py
	@$(PY) $(TOOLS)/execute.py $< $@ --scale $(SCALE)

book: $(EXECUTED) $(STAMP) ## render the book into build/book/_build/html (SCALE=ci|colab|paper)
	@$(PY) $(TOOLS)/assemble.py --src $(SRC)
	@rm -rf build/book
	@echo "== rendering"
	@PYTHONPATH=$(TOOLS) $(BIN)/jupyter-book build $(SRC) --path-output build/book --all -W -n --keep-going
	@$(PY) $(TOOLS)/check.py --src $(SRC) --html build/book/_build/html
	@echo "== open build/book/_build/html/index.html"

# Whole files go to the workers, in the order of collection: tests/conftest.py puts the longest first. A thread for each
# worker, as two that share a core wait for each other.
test: export OMP_NUM_THREADS := 1
test: PARALLEL := --numprocesses=$(WORKERS) --dist=loadfile --no-loadscope-reorder --max-worker-restart=0
test: $(STAMP) ## run the tests, then every notebook as a regression test (WORKERS=2 at a time)
	@echo "== tests"
	@$(PY) -m pytest tests $(PARALLEL)
ifneq ($(NOTEBOOKS),)
	@echo "== notebooks"
	@$(PY) -m pytest --nbmake notebooks --nbmake-timeout=900 --timeout=1800 $(PARALLEL)
endif

CLIENTS := .venv-clients
clients: ## test with trl, Lightning, sentence-transformers and ONNX, in an environment of their own (.venv-clients)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; say where it is: make PYTHON=/path/to/python"; exit 1; }
	@$(CLIENTS)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --disable-pip-version-check -c constraints.txt -c tests/clients/constraints.txt \
		-e ".[test]" trl lightning sentence-transformers onnx onnxscript onnxruntime
	@$(CLIENTS)/bin/python -m pytest tests/clients

bench: $(STAMP) ## measure what methods and the Fisher information cost; writes klnorm_lib/studies/{cost,fisher_cost}.json
	@$(PY) benchmarks/cost.py
	@$(PY) benchmarks/fisher.py $(if $(PEERS),--peers "$(PEERS)")

matrix: $(STAMP) ## check every architecture of transformers, JOBS=2 at a time; writes klnorm_lib/studies/matrix.json
	@$(PY) -m tests.matrix.run --again --jobs $(JOBS)

study: $(STAMP) ## run a study: make study NAME=smoke [PART=…] [ENGINE=local|dask|ray] [JOBS=2]; make a committed result again: RESULT=TASK/SIZE/ENCODER/ARM [REPLICATES=3]
	@test -n "$(NAME)" || { echo "say which: make study NAME=smoke; the studies are $(STUDIES)"; exit 1; }
	@$(BIN)/klnorm study "$(NAME)" $(if $(PART),--part "$(PART)") --engine $(ENGINE) --jobs $(JOBS) \
		$(if $(RECORDS),--records "$(RECORDS)") $(if $(RESULT),--remake "$(RESULT)" $(if $(REPLICATES),--replicates $(REPLICATES)))

lint: $(STAMP) ## check formatting, imports, and that notebooks hold no outputs
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
ifneq ($(NOTEBOOKS),)
	@$(BIN)/nbstripout --keep-id --verify $(NOTEBOOKS)
endif

colab-test: $(STAMP) ## run one notebook as Colab would: alone, in a new environment (NOTEBOOK=notebooks/…)
	@$(PY) $(TOOLS)/colab_test.py $(or $(NOTEBOOK),$(firstword $(NOTEBOOKS)))

environment-test: $(STAMP) ## replay environment.yml's pip lines in a new environment, without installing
	@$(PY) $(TOOLS)/replay_environment.py

repo-url: $(STAMP) ## change the repository's address everywhere: make repo-url URL=https://github.com/ORG/REPO
	@test -n "$(URL)" || { echo "say which: make repo-url URL=https://github.com/ORG/REPO"; exit 1; }
	@$(PY) $(TOOLS)/repo_url.py "$(URL)"

clean: ## remove what was built; the environment stays
	rm -rf build
