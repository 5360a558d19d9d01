#!/usr/bin/env bash
# Trains the four baselines.
# Run from a checkout: bash benchmarks/weights/recipe.sh PHOTOGRAPHS
# Times are of one CPU core. Each command continues where it was stopped.
set -euo pipefail
photos=${1:?folder of clean photographs}
train() { python -m benchmarks.baselines.train --images "$photos" --precision bf16 --passes 1 "$@"; }
ends=(--severity 12,17 --saturation-prob 0.1 --learning-rate 3e-3)

train vdsr_s --minutes 79 --out first
train dncnn_s --init first/vdsr_s.safetensors --minutes 73 --learning-rate 2e-3 --out moderate
train dncnn_s --init moderate/dncnn_s.safetensors "${ends[@]}" --minutes 348 --out baselines
train vdsr_s --init moderate/dncnn_s.safetensors "${ends[@]}" --minutes 273 --out baselines
train dncnn --init baselines/dncnn_s.safetensors "${ends[@]}" --minutes 13 --learning-rate 1e-4 --out baselines
train vdsr --init baselines/vdsr_s.safetensors "${ends[@]}" --minutes 13 --learning-rate 1e-4 --out baselines
