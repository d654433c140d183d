#!/bin/sh
# Pins every requirements/*.in with hashes. Usage: compile.sh <uv>
set -eu
uv=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
cd "$(dirname "$0")"
compile() {
    name=$1
    shift
    "$uv" pip compile "$name.in" --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header --output-file "$name.txt" "$@"
}
for name in dev controller pyworker pyworker-otel peer clients langchain litellm llamaindex models-llama; do
    compile "$name"
done
compile models-vllm --override models-vllm.overrides
