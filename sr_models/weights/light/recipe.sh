#!/usr/bin/env bash
# Trains light. The second argument is the folder of the authors' RFDN_AIM.pth, which teaches.
# Run from a checkout: bash sr_models/weights/light/recipe.sh PHOTOGRAPHS PEERS
# Minutes are of one CPU core with bf16 (AMX). Each command continues where it was stopped.
set -euo pipefail
photos=${1:?folder of clean photographs}
peers=${2:?folder of published weights of RFDN}

python -m benchmarks.baselines.teach --images "$photos" --weights "$peers" --out rfdn
imagerestore train sr --images "$photos" --model sed --generator light --stage psnr --teacher rfdn --precision bf16 \
  --optimizer muon --learning-rate 0.003 --ema-decay 0.999 --crop-size 128 --batch-size 16 --minutes 50 --out light
