#!/usr/bin/env bash
# In: the Python release for the reference (default 3.11). Out: exit 0 if values made afresh agree
# with the committed ones, or if torch cannot be installed here (the reason is printed).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
python="${1:-3.11}"
environment=.tools/parity

skip() { echo "parity: skipped: $*"; exit 0; }

if [ -n "${PARITY_ENVIRONMENT:-}" ]; then
  environment="$PARITY_ENVIRONMENT"
elif ! "$environment/bin/python" -c 'import torch, transformers' 2>/dev/null; then
  interpreter=""
  for candidate in "$(PYENV_VERSION= pyenv prefix "$python" 2>/dev/null || true)/bin/python" "python$python"; do
    if "$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then interpreter="$candidate"; break; fi
  done
  [ -n "$interpreter" ] || skip "no Python $python with its venv module was found"
  rm -rf "$environment"; mkdir -p "$(dirname "$environment")"
  "$interpreter" -m venv "$environment"
  # Only the CPU build will do: the plain one brings gigabytes of CUDA libraries.
  log="$environment/install.log"
  "$environment/bin/python" -m pip install --disable-pip-version-check --quiet --only-binary :all: \
      "torch==2.13.0+cpu" >"$log" 2>&1 \
    || skip "the CPU build of torch 2.13.0 cannot be installed here: $(grep -m1 ERROR "$log" || tail -1 "$log")"
  "$environment/bin/python" -m pip install --disable-pip-version-check --quiet \
      -r experiments/parity/requirements.txt >>"$log" 2>&1 \
    || skip "the reference's packages cannot be installed here: $(grep -m1 ERROR "$log" || tail -1 "$log")"
fi
exec "$environment/bin/python" experiments/parity/make_goldens.py --check
