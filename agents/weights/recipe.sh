#!/usr/bin/env bash
# Trains the five agents, each for the shipped toolboxes.
# Run from a checkout: bash agents/weights/recipe.sh PHOTOGRAPHS
# Times are of one CPU core. Each command continues where it was stopped.
set -euo pipefail
photos=${1:?folder of clean photographs}
agent() { imagerestore train agent --images "$photos" --envs 8 --minutes 0.1 --precision bf16 "$@"; }
camera=(--distortion restore_env.distortions.camera:camera --distortion-share 0.28)

agent --toolbox pure --out pure --warm-start 29
agent --toolbox classic --init pure/agent.safetensors --single-share 0.15 --warm-start 25 --out classic
agent --toolbox default --encoder spectral --severity 12,17 --cost-weight 0.3 --warm-start 23 --out ends
agent --toolbox default --init ends/agent.safetensors --severity 12-17,12,12,17,17 --cost-weight 0.3 --warm-start 37 --out moderate
agent --toolbox default --init moderate/agent.safetensors --severity 12-17,12,12,17,17 --saturation-prob 0.2 --cost-weight 0.3 --warm-start 10 --out default
agent --toolbox default --severity any --cost-weight 0.2 --single-share 0.3 --warm-start 60 --out any
agent --toolbox default --init any/agent.safetensors --severity any --cost-weight 0.2 --single-share 0.22 "${camera[@]}" --warm-start 50 --out photo
agent --toolbox default --init any/agent.safetensors --upscale 1 4 --severity any --single-share 0.4 --warm-start 40 --out super
