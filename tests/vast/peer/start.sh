#!/usr/bin/env bash
# A template's start script: the model server, and a worker of either package in front of it.
set -u
: >model.log
if [ "${USE_SSL:-false}" = true ]; then
  # As the public start script does it: a key of the instance's own, a request, a certificate from the console.
  openssl req -newkey rsa:2048 -nodes -keyout instance.key -out instance.csr -subj "/CN=worker" 2>/dev/null
  curl --silent --fail --request POST --header "Content-Type: application/octet-stream" --data-binary @instance.csr \
    "$CONSOLE/api/v0/sign_cert/?instance_id=$CONTAINER_ID" >instance.crt || exit 9
fi
python "$PEER_DIR/model.py" >>model.log 2>&1 &
exec "$WORKER_PYTHON" "${WORKER_FILE:-$PEER_DIR/worker.py}"
