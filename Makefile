# make demo    hears a recording and a video, answers, writes demo/
# make test    the tests that need neither accelerator nor minutes
# make lint    ruff and pyright
# make notebooks, make test-slow, make parity: see README.md
#
# Every target first makes .venv from requirements.lock, once; nothing but python, make and git is
# assumed. UV=/path/to/uv uses another uv than the one found on PATH or fetched into .tools/.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# The release that wrote requirements.lock; an installed one of any version is used as it is.
UV_VERSION := 0.13.8
PYTHON := .venv/bin/python
READY := .venv/.ready
PARITY_PYTHON ?= 3.11
# Whole files to each worker, in the order of tests/conftest.py: those that take long first.
TWO_WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

# Recordings that are not in the repository are used where they lie beside it.
ifneq ($(wildcard ../shared/media),)
export INTERACTION_MEDIA ?= $(abspath ../shared/media)
endif
ifneq ($(wildcard ../shared/spoken_digits),)
export INTERACTION_SPOKEN_DIGITS ?= $(abspath ../shared/spoken_digits)
endif

.PHONY: help demo test test-slow test-slurm test-tpu-compile lint format notebooks parity lock clean
help:
	@sed -n '1,4p' Makefile | cut -c3-

demo: $(READY)
	$(PYTHON) launch.py demo --out demo $(DEMO)

test: $(READY)
	$(PYTHON) -m pytest $(TWO_WORKERS) $(TESTS)

test-slow: $(READY)
	$(PYTHON) -m pytest $(TWO_WORKERS) -m slow $(TESTS)

# Starts SLURM on this machine (Debian's slurm-wlm and munge, root) and runs jobs on it.
test-slurm: $(READY)
	$(PYTHON) -m pytest -m slurm $(TESTS)

# Compiles the TPU kernels and the live step for TPUs, with no TPU; libtpu has an environment of
# its own, because JAX looks for a TPU wherever it is installed.
test-tpu-compile: $(READY)
	@uv="$(UV)"; if [ -z "$$uv" ]; then \
	  if uv --version >/dev/null 2>&1; then uv=uv; else uv=.tools/uv/bin/uv; fi; fi; \
	if [ ! -e .tools/tpu/.ready ]; then \
	  "$$uv" venv --quiet --clear --no-project --python $(PYTHON) .tools/tpu; \
	  "$$uv" pip sync --quiet --python .tools/tpu/bin/python --require-hashes requirements.lock; \
	  "$$uv" pip install --quiet --python .tools/tpu/bin/python 'libtpu==0.0.48.*'; \
	  touch .tools/tpu/.ready; fi
	JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 ALLOW_MULTIPLE_LIBTPU_LOAD=1 \
	  .tools/tpu/bin/python -m pytest -m tpu_compile $(TESTS)

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright

format: $(READY)
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

notebooks: $(READY)
	@shopt -s nullglob; for notebook in notebooks/*.ipynb; do \
	  echo "$$notebook"; .venv/bin/jupyter-execute --timeout=600 "$$notebook"; done

# ---------------------------------------------------------------- environment

$(READY): requirements.lock pyproject.toml .python-version
	@uv="$(UV)"; if [ -z "$$uv" ]; then \
	  if uv --version >/dev/null 2>&1; then uv=uv; else uv=.tools/uv/bin/uv; fi; fi; \
	if [ "$$uv" = .tools/uv/bin/uv ] && ! "$$uv" --version >/dev/null 2>&1; then \
	  for python in python3.12 python3.13 python3 python /usr/bin/python3; do \
	    if "$$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then break; fi; python=; done; \
	  if [ -z "$$python" ]; then echo "error: no python3 with its venv module was found on PATH;" \
	    "install one, or give UV=/path/to/uv" >&2; exit 1; fi; \
	  rm -rf .tools/uv; "$$python" -m venv .tools/uv; \
	  .tools/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); fi; \
	if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null; then \
	  rm -rf .venv; prefix="$$(pyenv prefix 3.12 2>/dev/null || true)"; \
	  "$$uv" venv --quiet --no-project --python 3.12 .venv \
	    || { [ -n "$$prefix" ] && "$$uv" venv --quiet --no-project --python "$$prefix/bin/python" .venv; } \
	    || { echo "error: Python 3.12 was not found, and uv could not fetch it;" \
	      "install python3.12 and run make again" >&2; exit 1; }; fi; \
	echo "installing requirements.lock into .venv (once; about a minute)"; \
	"$$uv" pip sync --quiet --python $(PYTHON) --require-hashes requirements.lock; \
	"$$uv" pip install --quiet --python $(PYTHON) --no-deps --editable .
	@touch $@

# Only for maintainers: resolve pyproject.toml again. Names, versions and hashes, no addresses.
lock:
	uv pip compile pyproject.toml --universal --python-version 3.12 --upgrade \
	  --extra voices --extra eval --extra prosody --extra stitched --extra serve --extra cluster --extra dev \
	  --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links \
	  --quiet --output-file requirements.lock

# ---------------------------------------------------------------- reference values

# Makes the values of the reference implementation afresh, in an environment of its own (torch and
# transformers are no dependency), and compares them with the committed ones.
parity:
	@bash experiments/parity/check.sh $(PARITY_PYTHON)

clean:
	rm -rf .venv .tools demo .pytest_cache .ruff_cache .hypothesis
