#!/usr/bin/env bash
# Trains the four baselines.
# Run from a checkout: bash benchmarks/weights/recipe.sh PHOTOGRAPHS
# Times are of one CPU core. Each command continues where it was stopped.
set -euo pipefail
photos=${1:?folder of clean photographs}
train() { python -m benchmarks.baselines.train --images "$photos" --precision bf16 "$@"; }
ends=(--severity 12,17 --saturation-prob 0.1)

for name in vdsr_s dncnn_s vdsr dncnn; do
  train "$name" --minutes 160 --out moderate
  train "$name" --init "moderate/$name.safetensors" "${ends[@]}" --minutes 340 --out baselines
done
