#!/usr/bin/env bash
# Trains the toolbox classic, from the toolbox pure.
# Run from a checkout: bash tools_zoo/weights/classic/recipe.sh PHOTOGRAPHS
# Times are of one CPU core. Each command continues where it was stopped.
set -euo pipefail
photos=${1:?folder of clean photographs}
joint() { imagerestore train joint --images "$photos" --batch-size 16 --precision bf16 "$@"; }

joint --toolbox pure --policy pure --out first --rounds 3 --refresh 4 --optimizer adam --loss mse --minutes 74
imagerestore train agent --images "$photos" --toolbox first --init pure --severity moderate+moderate+moderate+single --warm-start 25 --minutes 0.1 --precision bf16 --out agent
joint --toolbox first --policy agent/agent.safetensors --out second --intermediate-weight 0.2 --exploration 0.05 --learning-rate 8e-4 --minutes 185
joint --toolbox second --policy agent/agent.safetensors --out third --intermediate-weight 0.2 --exploration 0.05 --severity 12,17 --learning-rate 6e-4 --minutes 25
joint --toolbox third --policy agent/agent.safetensors --out classic --intermediate-weight 0.2 --exploration 0.05 --severity 12,12,12,17 --learning-rate 5e-4 --minutes 11
