#!/bin/bash
# What is to be known of a GPU, in some five minutes: bash benchmarks/on_gpu.sh OUT
# Steps of the paper's run at several batches, compiled and with less memory, each in a file; where their time goes;
# augmentation in a batch against a loop over videos. A measurement that fails or hangs does not stop the others.
set -u
out=${1:?folder for the results}
mkdir -p "$out"
bench() {
  local name=$1 limit=$2
  shift 2
  timeout "$limit" python3 -m uptal bench pretrain "$@" --device cuda --json "$out/$name.json" > "$out/$name.txt" 2>&1
  echo "$name: exit code $?"
  grep -E "samples_per_s|share|peak|rror" "$out/$name.txt"
}
timeout 90 python3 benchmarks/augment.py --device cuda --videos 32 --source 128 --size 112 --rounds 5 | tee "$out/augment.txt"
bench paper-64-profile 90 paper --optim.batch 64 --steps 10 --profile
bench paper-64-compile 240 paper --optim.batch 64 --steps 10 --compile true
bench paper-128 90 paper --optim.batch 128 --steps 10
bench paper-256-recompute 120 paper --optim.batch 256 --steps 5 --recompute true
