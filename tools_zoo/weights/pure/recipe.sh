#!/usr/bin/env bash
# Trains the toolbox pure.
# Run from a checkout: bash tools_zoo/weights/pure/recipe.sh PHOTOGRAPHS
# Times are of one CPU core. Each command continues where it was stopped.
set -euo pipefail
photos=${1:?folder of clean photographs}
tools() { imagerestore train tools --images "$photos" --optimizer adam --loss mse --precision bf16 "$@"; }

tools --out first --tools denoise_2 denoise_1 dejpeg_2 dejpeg_1 deblur_1 deblur_2 --minutes 40
tools --out first --tools denoise_3 denoise_4 dejpeg_3 dejpeg_4 deblur_3 deblur_4 --minutes 50

# Some large tools once more, with fewer slight distortions; copy what is not trained again from the folder before.
mkdir -p pure && cp first/*.safetensors first/toolbox.json pure/
tools --out second --init first --tools denoise_4 deblur_3 dejpeg_3 deblur_4 --slight-share 0.3 --learning-rate 1e-3 --minutes 21
tools --out third --init first --tools denoise_3 --slight-share 0.05 --learning-rate 1e-3 --minutes 39
cp second/*.safetensors pure/
cp third/*.safetensors pure/
