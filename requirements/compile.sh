#!/bin/sh
# Pins every requirements/*.in with hashes. Usage: compile.sh <uv>
set -eu
uv=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
cd "$(dirname "$0")"
for name in dev controller pyworker pyworker-otel peer clients langchain litellm llamaindex; do
    "$uv" pip compile "$name.in" --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header --output-file "$name.txt"
done
