#!/usr/bin/env bash
# Installs the engine's own version of stoker's worker into an environment of its own, and runs it.
#   curl -fsSL "$REPORT_ADDR/worker/bootstrap.sh" | bash -s -- PRESET [OPTIONS]      # or: … -- path/to/worker.py
# STOKER_WORKER_HOME is the folder of the environment; the default is ~/.stoker-worker. Other packages stay as they are.
set -uo pipefail
version='@VERSION@'
files='@FILES@' # lines of: sha256  name
home="${STOKER_WORKER_HOME:-${HOME:-/root}/.stoker-worker}"
base="${REPORT_ADDR:-}"
base="${base%%,*}/worker"
attempts="${STOKER_BOOTSTRAP_ATTEMPTS:-9}" # their pauses add up to two minutes
venv="$home/$version"
requirements=requirements.txt
# The variables that ask for traces need further packages, in an environment of its own.
if [ -n "${OTEL_TRACES_EXPORTER:-}${OTEL_EXPORTER_OTLP_ENDPOINT:-}${OTEL_EXPORTER_OTLP_TRACES_ENDPOINT:-}" ]; then
    requirements=requirements-otel.txt
    venv="$venv-otel"
fi

say() { printf 'stoker bootstrap: %s\n' "$*" >&2; }

# The engine sees the failure at once and replaces the machine; without this it would wait for the start-up limit.
report() {
    [ -n "${MASTER_TOKEN:-}" ] && [ -n "${CONTAINER_ID:-}" ] || return 0
    local text port="VAST_TCP_PORT_${WORKER_PORT:-3000}"
    text=$(printf '%s' "$1" | tr -d '"\\' | tr -c '[:print:]' ' ' | cut -c1-500)
    curl -fsS --max-time 20 --retry 3 -o /dev/null -H 'Content-Type: application/json' "${base%/worker}/worker_status/" \
        --data "{\"id\": $CONTAINER_ID, \"mtoken\": \"$MASTER_TOKEN\", \"error_msg\": \"$text\", \"error_everywhere\": ${2:-false},
                 \"url\": \"http://${PUBLIC_IPADDR:-127.0.0.1}:${!port:-3000}\"}" || say "cannot report this to the engine"
}

fail() {
    local text free
    text="$1"
    free=$(df -Pk "$home" 2>/dev/null | { read -r _; read -r _ _ _ free _; printf '%s' "$free"; })
    if [ -n "$free" ] && [ "$free" -lt 20480 ]; then
        text="only $((free / 1024)) MiB are free in $home, rent with a larger disk (launch_args: --disk); $text"
    fi
    say "$text"
    report "bootstrap: $text" "${2:-false}"
    exit 3
}

# Runs a command until it succeeds, with growing pauses. The last lines of its output explain a failure.
retry() {
    local what="$1" remedy="$2" pause=1 attempt output
    shift 2
    for attempt in $(seq "$attempts"); do
        if output=$("$@" 2>&1); then return 0; fi
        say "$what failed (attempt $attempt of $attempts): $(tail -n 1 <<<"$output")"
        if [ "$attempt" -lt "$attempts" ]; then
            sleep "$pause"
            pause=$((pause < 30 ? pause * 2 : 30))
        fi
    done
    fail "$what failed: $(tail -n 3 <<<"$output" | tr '\n' ' '). $remedy"
}

download() { curl -fsSL --max-time 300 -o "$2" "$1"; }

is_supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info)' 2>/dev/null; }

find_python() {
    local name path
    for name in python3.13 python3.12 python3.11 python3 python /usr/bin/python3 /opt/conda/bin/python; do
        path=$(command -v "$name") && is_supported "$path" && { printf '%s' "$path"; return 0; }
    done
    return 1
}

# uv from its publisher, or with an older Python's pip from the package index.
get_uv() {
    curl -fsSL --max-time 300 https://astral.sh/uv/install.sh | env UV_UNMANAGED_INSTALL="$home/uv" sh && return
    python3 -m pip install --quiet --disable-pip-version-check --upgrade --target "$home/uv/pip" uv &&
        ln -sf pip/bin/uv "$home/uv/uv"
}

install_worker() {
    local wheels="$home/wheels" python uv sum name
    mkdir -p "$wheels" || fail "cannot create $wheels; set STOKER_WORKER_HOME to a folder that can be written"
    while read -r sum name; do
        retry "the download of $name" "Does this machine reach $base?" download "$base/$name" "$wheels/$name"
        echo "$sum  $wheels/$name" | sha256sum --check --quiet - >/dev/null 2>&1 ||
            fail "$name does not have the expected SHA-256; is a proxy in between that changes files?"
    done <<<"$files"
    python=$(find_python) || python=""
    uv=$(command -v uv) || uv=""
    rm -rf "$venv"
    if [ -z "$uv" ] && { [ -z "$python" ] || ! "$python" -c 'import venv, ensurepip' 2>/dev/null; }; then
        say "this image has no Python 3.11 with venv; uv brings one"
        retry "the download of uv" "Take an image with Python 3.11 and venv, or with uv." get_uv
        uv="$home/uv/uv"
    fi
    local packages=("$wheels"/stoker_wire-"$version"-*.whl "$wheels"/stoker_pyworker-"$version"-*.whl)
    local remedy="Does this machine reach the package index?"
    local environment="$remedy"
    [ -n "$python" ] || environment="Does this machine reach github.com, where uv gets Python? Or take an image with Python 3.11."
    # A half-made environment is removed before each attempt, and the variables of the image do not lead elsewhere.
    unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
    if [ -n "$uv" ]; then
        retry "the environment" "$environment" "$uv" venv --quiet --clear --python "${python:-3.12}" "$venv"
        retry "the installation of the worker's packages" "$remedy" \
            "$uv" pip install --quiet --python "$venv/bin/python" --require-hashes -r "$wheels/$requirements"
        retry "the installation of the worker" "$remedy" \
            "$uv" pip install --quiet --python "$venv/bin/python" --no-deps "${packages[@]}"
    else
        retry "the environment" "$remedy" "$python" -m venv --clear "$venv"
        retry "the installation of the worker's packages" "$remedy" \
            "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$wheels/$requirements"
        retry "the installation of the worker" "$remedy" \
            "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "${packages[@]}"
    fi
    "$venv/bin/python" -I -c 'import stoker_pyworker' || fail "the installed worker cannot be imported"
    touch "$venv/.complete"
}

main() {
    [ $# -gt 0 ] || fail "expected a preset or a worker file: … | bash -s -- PRESET" true
    [ -n "${REPORT_ADDR:-}" ] || fail "REPORT_ADDR is not set; the engine sets it on the instances that it rents"
    # A stopped instance starts again with its disk: nothing is downloaded then.
    if [ ! -e "$venv/.complete" ]; then
        say "installing stoker-pyworker $version into $venv"
        install_worker
    fi
    case "$1" in
        *.py)
            unset PYTHONPATH PYTHONHOME
            exec "$venv/bin/python" "$@"
            ;;
        *)
            local fault
            fault=$("$venv/bin/python" -I -m stoker_pyworker.presets "$1" --dry-run "${@:2}" 2>&1 >/dev/null)
            [ $? -ne 2 ] || fail "${fault##*stoker: }; correct the template" true
            exec "$venv/bin/python" -I -m stoker_pyworker.presets "$@"
            ;;
    esac
}

# One call at the end, in braces: a download that is cut off runs nothing.
{ main "$@"; }
