#!/usr/bin/env bash
# The onstart script: a model server, and a worker in front of it. Runs until the worker has drained, or SIGTERM.
# STOKER_EXAMPLE_DIR says where the files are (default: beside this script); everything is written to the current folder.
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

# The model server, restarted when it dies; its end is a line that the worker reports.
# A machine that stops may send SIGTERM to every process: the model must outlive the worker's last request, so it
# ignores that one (its server inherits this) and ends by SIGUSR1: under nohup SIGHUP cannot be trapped at all.
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
  # SIGTERM may have come while there was no worker to hand it to.
  [ -n "$ending" ] && kill -TERM "$worker" 2>/dev/null
  # A trapped signal interrupts the wait; the worker is still finishing then.
  wait "$worker"; status=$?
  while kill -0 "$worker" 2>/dev/null; do wait "$worker"; status=$?; done
  worker=""
  if [ -e .force_update ] && [ -z "$ending" ]; then
    # A rolling update: start again from the files as they are now, the model too.
    rm -f .force_update
    end_model
    : >"$MODEL_LOG"
    start_model
    continue
  fi
  # 0: drained, on purpose. 2: the environment is not usable, and will not be in a second either.
  if [ -n "$ending" ] || [ "$status" -eq 0 ] || [ "$status" -eq 2 ]; then break; fi
  echo "worker ended with status $status; it is started again" >&2
  sleep 1 & wait $!
done
end_model
exit "$status"
