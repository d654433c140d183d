#!/usr/bin/env bash
# The onstart script: runs a model server and a worker until the worker has drained, or until SIGTERM.
# STOKER_EXAMPLE_DIR is the folder of the files (default: the folder of this script). Output goes to the current folder.
set -u
files="${STOKER_EXAMPLE_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)}"
python="${STOKER_PYTHON:-python}"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
export MODEL_PORT="${MODEL_PORT:-8000}" MODEL_LOG="${MODEL_LOG:-model.log}"

: >"$MODEL_LOG"
rm -f .force_update
ending=""
model=""
worker=""

# Runs the model server and restarts it after a crash. The worker reports the log line about its end.
# A stopping machine may send SIGTERM to every process, but the model must outlive the last request of the worker. So
# model and server ignore SIGTERM and end by SIGUSR1. (Under nohup, SIGHUP cannot be trapped.)
keep_model() {
  local child=""
  trap '' TERM
  trap 'kill -USR1 "$child" 2>/dev/null; exit 0' USR1
  while true; do
    "$python" "$files/model_server.py" >>"$MODEL_LOG" 2>&1 &
    child=$!
    wait "$child"
    echo "model server ended with status $?; it is started again" >>"$MODEL_LOG"
    sleep 1 &
    child=$!
    wait "$child"
  done
}

start_model() {
  keep_model &
  model=$!
}

end_model() {
  kill -USR1 "$model" 2>/dev/null
  wait "$model" 2>/dev/null
}

end() {
  ending=yes
  [ -n "$worker" ] && kill -TERM "$worker" 2>/dev/null
}
trap end TERM INT

start_model
status=0
while [ -z "$ending" ]; do
  "$python" "$files/worker.py" &
  worker=$!
  # SIGTERM may have arrived before the worker was started.
  [ -n "$ending" ] && kill -TERM "$worker" 2>/dev/null
  # A trapped signal interrupts `wait` while the worker still drains.
  wait "$worker"; status=$?
  while kill -0 "$worker" 2>/dev/null; do wait "$worker"; status=$?; done
  worker=""
  if [ -e .force_update ] && [ -z "$ending" ]; then
    # A rolling update: start worker and model again from the current files.
    rm -f .force_update
    end_model
    : >"$MODEL_LOG"
    start_model
    continue
  fi
  # 0: drained. 2: invalid environment, which a restart does not change.
  if [ -n "$ending" ] || [ "$status" -eq 0 ] || [ "$status" -eq 2 ]; then break; fi
  echo "worker ended with status $status; it is started again" >&2
  sleep 1 & wait $!
done
end_model
exit "$status"
