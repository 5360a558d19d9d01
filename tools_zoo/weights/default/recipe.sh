#!/usr/bin/env bash
# Trains the toolbox default.
# Run from a checkout: bash tools_zoo/weights/default/recipe.sh PHOTOGRAPHS
# Times are of one CPU core. Each command continues where it was stopped.
set -euo pipefail
photos=${1:?folder of clean photographs}
joint() { imagerestore train joint --images "$photos" --exploration 0 --chain-length 2 "$@"; }
deblur=(deblur_1 deblur_2 deblur_3 deblur_4 dejpeg_3 dejpeg_4)
denoise=(denoise_1 denoise_2 denoise_3 denoise_4 dejpeg_1 dejpeg_2)

# One network for all distortions: first the protocol's mixtures, then the mixed world.
imagerestore train tools --images "$photos" --shapes hourglass --tools all --mixed-share 0.5 --minutes 60 --out start
joint --toolbox start --out mixtures --chain denoise_4 denoise_4 --severity moderate --saturation-prob 0.1 --minutes 340
joint --toolbox mixtures --out one --chain denoise_4 denoise_4 --intermediate-weight 0.5 --severity mixed --saturation-prob 0.1 --patch-size 48 --batch-size 32 --learning-rate 1.5e-3 --minutes 40

# Twelve copies of it, each on the patches in whose distortion its own kind and strength is strong, one half after the other.
named() { joint --chains distortion --intermediate-weight 0.5 --severity mixed+mixed+moderate --saturation-prob 0.08 --patch-size 48 --batch-size 48 --minutes 95 "$@"; }
named --toolbox one --out half --initial-weights {deblur_1,deblur_2,deblur_3,deblur_4,denoise_1,denoise_2,denoise_3,dejpeg_1,dejpeg_2,dejpeg_3,dejpeg_4}=denoise_4 --frozen-tools "${denoise[@]}"
named --toolbox half --out named --frozen-tools "${deblur[@]}"

# Larger patches, and more of the protocol's mixtures.
last() { joint --chains distortion --intermediate-weight 0.5 --severity mixed+moderate --saturation-prob 0.08 --patch-size 63 --batch-size 32 --learning-rate 8e-4 --minutes 50 "$@"; }
last --toolbox named --out last_half --initial-weights dejpeg_1=dejpeg_2 --frozen-tools "${denoise[@]}"
last --toolbox last_half --out default --frozen-tools "${deblur[@]}"
