#!/usr/bin/env bash
# Trains the toolbox default.
# Run from a checkout: bash tools_zoo/weights/default/recipe.sh PHOTOGRAPHS
# Times are of one CPU core. Each command continues where it was stopped.
set -euo pipefail
photos=${1:?folder of clean photographs}
tools() { imagerestore train tools --images "$photos" --shapes hourglass --precision bf16 "$@"; }
joint() { imagerestore train joint --images "$photos" --policy default --exploration 0 --precision bf16 "$@"; }

# Twelve tools, each on its share of the mixtures.
tools --out small --tools denoise_2 denoise_1 dejpeg_2 dejpeg_1 deblur_1 deblur_2 --mixed-share 0.5 --minutes 30
tools --out start --init small --tools all --mixed-share 0.5 --minutes 60

# One network for all mixtures, then a second stage after it that starts as the identity.
joint --toolbox start --out first --chain denoise_4 --chain-length 1 --minutes 90
joint --toolbox first --out copied --initial-weights deblur_3=denoise_4 --chain denoise_4 deblur_3 --intermediate-weight 0.2 --steps 1
joint --toolbox copied --out pair --initial-weights deblur_3=identity --chain denoise_4 deblur_3 --intermediate-weight 0.2 --minutes 94

# A gentle tool for one distortion; the pair on the ends of the moderate mixtures; tools for weak and strong ones.
joint --toolbox pair --out gentle --initial-weights denoise_3=denoise_4 --chain denoise_3 --chain-length 1 --single-share 0.75 --minutes 20
joint --toolbox gentle --out ends --chain denoise_4 deblur_3 --intermediate-weight 0.2 --severity 12,17 --minutes 63
joint --toolbox ends --out weak --initial-weights dejpeg_3=denoise_4 --frozen-tools deblur_3 --chain dejpeg_3 deblur_3 --intermediate-weight 0.3 --severity 12 --minutes 9
joint --toolbox weak --out strong --initial-weights dejpeg_4=denoise_4 --frozen-tools deblur_3 --chain dejpeg_4 deblur_3 --intermediate-weight 0.2 --severity 17 --minutes 17

# White and black areas.
joint --toolbox strong --out default --chain denoise_4 deblur_3 --intermediate-weight 0.2 --severity 12,17 --saturation-prob 0.15 --minutes 70
