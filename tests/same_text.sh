#!/usr/bin/env bash
# same_text.sh M40LLM: the program itself writes the same text on the CPU and through CUDA (the driver that $M40LLM_CUDA_LIB names).
set -eu
run() { "$1" run models/demo.gguf -p 'The old man sat by the fire and' -n 24 --seed 7 --device "$2"; }
cpu=$(run "$1" cpu)
cuda=$(run "$1" cuda)
echo "$cpu"
[ -n "$cpu" ] && [ "$cpu" = "$cuda" ]
