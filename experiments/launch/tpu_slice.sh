#!/usr/bin/env bash
# A run on all workers of a Cloud TPU slice: made, installed, started, and taken up again after a preemption.
#
#   PROJECT=my-project ZONE=us-west4-a BUCKET=gs://my-bucket REPOSITORY=https://host/lpi_jax.git \
#       experiments/launch/tpu_slice.sh NAME v5litepod-16 \
#       --config=configs/coco_lpi.py --config.data.path=coco --workdir=runs/coco
#
# BUCKET/data is copied to every worker, as the folder that --config.data.path names; the run's folder lies on the first
# worker and is copied to BUCKET/NAME every five minutes. A slice that is taken away is asked for again, and the run goes
# on from its last copy. DRY=1 prints what would be called. SPOT=0 asks for a slice that is not taken away.
set -euo pipefail

if (($# < 3)); then
  sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
name=$1 kind=$2
shift 2
: "${PROJECT:?the project, as gcloud knows it}" "${ZONE:?such as us-west4-a}" "${BUCKET:?such as gs://my-bucket}"
runtime=${RUNTIME:-v2-alpha-tpuv5-lite}
: "${REPOSITORY:?where this repository is cloned from}"
workdir=
data=data
for argument in "$@"; do
  case $argument in
    --workdir=*) workdir=${argument#*=} ;;
    --config.data.path=*) data=${argument#*=} ;;
  esac
done
if [[ -z $workdir ]]; then
  echo "error: --workdir=DIR is missing; it is the run's folder on the first worker" >&2
  exit 2
fi

call() { # what talks to the cloud; printed alone with DRY=1
  if [[ ${DRY:-0} == 1 ]]; then
    printf '%q ' "$@"
    printf '\n'
  else
    "$@"
  fi
}
tpu() { call gcloud compute tpus "$@" --project="$PROJECT" --zone="$ZONE"; }
everywhere() { tpu tpu-vm ssh "$name" --worker=all --command="$1"; }
first() { tpu tpu-vm ssh "$name" --worker=0 --command="$1"; }

state() { tpu queued-resources describe "$name" --format='value(state.state)' 2>/dev/null || echo NONE; }

slice() { # asks for the slice and waits until it is there
  local spot=(--spot)
  [[ ${SPOT:-1} == 0 ]] && spot=()
  if [[ ${DRY:-0} != 1 ]]; then
    case $(state) in
      ACTIVE) return ;; # it is there already, from an earlier start
      NONE) ;;
      *) tpu queued-resources delete "$name" --force --quiet ;; # one that was taken away still has its name
    esac
  fi
  tpu queued-resources create "$name" --node-id="$name" --accelerator-type="$kind" --runtime-version="$runtime" "${spot[@]}"
  [[ ${DRY:-0} == 1 ]] && return
  until [[ $(state) == ACTIVE ]]; do sleep 30; done
}

install() { # the package with the TPU's JAX, the data, and what an earlier slice has left of the run
  everywhere "test -d lpi_jax || git clone --depth 1 $REPOSITORY lpi_jax; cd lpi_jax && make .venv/installed PYTHON=python3.11 \
&& .venv/bin/pip install --quiet --editable '.[tpu]' && gcloud storage rsync --recursive $BUCKET/data $data"
  first "cd lpi_jax && mkdir -p $workdir && (gcloud storage rsync --recursive $BUCKET/$name $workdir || true)"
}

start() { # ends as the run does; the first worker copies its folder while it runs, and at its end
  local arguments keep status=0
  arguments=$(printf '%q ' "$@")
  keep="while sleep 300; do gcloud storage rsync --recursive $workdir $BUCKET/$name; done"
  first "cd lpi_jax && (nohup bash -c $(printf '%q' "$keep") >/dev/null 2>&1 &)"
  everywhere "cd lpi_jax && .venv/bin/python -m lpi_jax.main $arguments --config.distributed=true" || status=$?
  first "cd lpi_jax && gcloud storage rsync --recursive $workdir $BUCKET/$name" || true # of a slice that is still there
  return "$status"
}

while true; do
  slice
  install
  status=0
  start "$@" || status=$?
  if ((status == 0)); then
    tpu queued-resources delete "$name" --force --quiet
    break
  fi
  if ((status == 2)); then # a mistake in the command line or the data: it would be the same again
    exit 2
  fi
  now=$(state)
  if [[ $now == ACTIVE ]]; then
    echo "error: the run ended with status $status, and the slice is still there; see its output above" >&2
    exit "$status"
  fi
  echo "the slice is $now; asking for another one" >&2
done
