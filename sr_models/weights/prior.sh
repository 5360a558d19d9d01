#!/usr/bin/env bash
# Trains the semantic prior.
# Run from a checkout: bash sr_models/weights/prior.sh BSDS_LABELS FACADE_LABELS SQUEEZENET_WEIGHTS
set -euo pipefail
imagerestore train prior --labels "$1" "$2" --squeezenet "$3" --precision bf16 --minutes 15 --out prior
