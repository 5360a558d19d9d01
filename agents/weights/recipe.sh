#!/usr/bin/env bash
# Trains the three agents, each for the shipped toolbox of its name; default plays the super-resolvers, too.
# Run from a checkout: bash agents/weights/recipe.sh PHOTOGRAPHS
# Each command continues where it was stopped. Level sets take most of the time, on two CPU cores, and are reused.
set -euo pipefail
photos=${1:?folder of clean photographs}
levels() { imagerestore levels build --images "$photos" --toolbox sr_models:default_toolbox --no-last --beyond "$@"; }
for seed in 21 22 23 24 25 26 27; do
  levels --upscale 1 --count 2000 --pixels --backend ncnn --seed $seed --out same_size_$seed
done
hard() { levels --upscale 1 --count 1000 --pixels --backend ncnn "$@"; }
for seed in 51 52 53; do
  hard --severity correlated+correlated+defocus+fine+grain+resaved --seed $seed --out hard_$seed
done
hard --severity clean+fine+fine+correlated --seed 54 --out hard_54
levels --upscale 4 --count 150 --pixels --backend ncnn --seed 31 --out low_resolution
imagerestore train imitation --levels same_size_* hard_* low_resolution --steps 9000 --out first
levels --severity mild+moderate+severe --upscale 1 --count 1200 --pixels --backend ncnn --seed 41 --out protocol
imagerestore train imitation --levels same_size_* hard_* low_resolution protocol protocol protocol --init first/agent.safetensors \
  --learning-rate 0.0005 --steps 4500 --out default

agent() { imagerestore train agent --images "$photos" --upscale 1 --encoder published --minutes 0.1 "$@"; }
agent --toolbox pure --severity moderate --warm-start 29 --out pure
agent --toolbox classic --init pure/agent.safetensors --severity moderate+moderate+moderate+single --warm-start 25 --out classic
