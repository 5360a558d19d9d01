#!/usr/bin/env bash
# Trains sed. The second argument is SqueezeNet 1.1's weights (.npz).
# Run from a checkout: bash sr_models/weights/sed/recipe.sh PHOTOGRAPHS
# Times are of one CPU core. Each command continues where it was stopped.
set -euo pipefail
photos=${1:?folder of clean photographs}
squeezenet=${2:?weights of SqueezeNet 1.1}
sr() { imagerestore train sr --images "$photos" --squeezenet "$squeezenet" --model sed --precision bf16 --out sed "$@"; }

sr --stage psnr --minutes 40
sr --stage gan --minutes 25 --discriminator-width 32
