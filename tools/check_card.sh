#!/usr/bin/env bash
# check_card.sh BUILD OUT [quick]: on a machine with a card, the whole test suite, a first start, and the benchmarks of docs/validation.md; logs go to OUT.
set -u
build=$1
out=$2
mkdir -p "$out"
export M40LLM_REQUIRE_GPU=1
nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm --format=csv | tee "$out/card.txt"
tests/list.sh "$build" none device | tests/run.sh "$out/logs" -j 4 | tee "$out/tests.txt"
export CUDA_CACHE_PATH
CUDA_CACHE_PATH=$(mktemp -d)
echo '--- first start (empty cache), then a second one'
for i in 1 2; do
    M40LLM_LOG=info "$build/m40llm" run tests/data/demo/demo-q4_k_m.gguf --device cuda -p 'The old man sat by the fire and' -n 40 --temp 0
done 2>&1 | tee "$out/first_start.txt"
[ "${3:-}" = quick ] && exit
export TMPDIR=${TMPDIR:-/dev/shm}
"$build/bench-kernels" --ops matmul --shapes 4096x14336 --tokens 1,8,512 --types f16,q8_0,q4_0,q4_k,q5_k,q6_k,iq4_xs,mxfp4 --device cuda:0 2>&1 | tee "$out/kernels.txt"
"$build/bench-kernels" --ops attention,norm,rope,silu --device cuda:0 2>&1 | tee -a "$out/kernels.txt"
for synth in 8b:f16 8b:q4_k 1b:q4_k tiny:q4_k; do
    M40LLM_LOG=info "$build/m40llm" bench --synth $synth --device cuda -p 512 -n 128
done 2>&1 | tee "$out/bench.txt"
