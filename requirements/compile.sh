#!/bin/sh
# Pins every requirements/*.in with hashes. Usage: compile.sh <uv>
set -eu
cd "$(dirname "$0")"
for name in dev controller pyworker peer; do
    set -- "${1}"
    "$1" pip compile "$name.in" --quiet --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-emit-find-links --no-header --output-file "$name.txt"
done
