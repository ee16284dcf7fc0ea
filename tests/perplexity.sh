#!/usr/bin/env bash
# perplexity.sh M40LLM DEVICE WINDOWS: the demo model's perplexity against tests/data/demo/demo_ref.json and README figures, as TAP.
# WINDOWS below 64: the first ones only, against the mean of their per-window figures (style full alone has those).
set -u
program=$1
device=$2
windows=$3
data=${M40LLM_TEST_DATA:-tests/data}/demo

# perplexity FILE STYLE KV: the mean NLL and the perplexity
perplexity() {
    "$program" perplexity "$1" -f "$data/valid.txt" --windows "$windows" --style "$2" --kv-type "$3" --device "$device" 2>/dev/null |
        sed -n 's/.*mean NLL \([0-9.]*\), perplexity \([0-9.]*\)$/\1 \2/p'
}
n=0
# check NAME FOUND EXPECTED PERCENT
check() {
    n=$((n + 1))
    awk -v n=$n -v name="$1" -v found="$2" -v expected="$3" -v percent="$4" 'BEGIN {
        off = (found == "") ? 100 : (found / expected - 1) * 100
        good = (off <= percent && off >= -percent)
        printf("%s %d - %s: %s, expected %s (%+.4f%%, at most %s%%)\n", (good ? "ok" : "not ok"), n, name, found, expected, off, percent)
        exit !good
    }' || failed=1
}
failed=0
if [ "$windows" -lt 64 ]; then
    echo 1..1
    expected=$(sed -n 's/.*"window_mean_nll": *\[\([^]]*\)\].*/\1/p' "$data/demo_ref.json" | tr -d ' ' | cut -d, -f"1-$windows" | tr ',' '\n' |
        awk '{ s += $1 } END { printf "%.6f", exp(s / NR) }')
    read -r _ found <<<"$(perplexity models/demo.gguf full f32)"
    check "F16 file, FP32 cache, $windows windows" "${found:-}" "$expected" 0.05
    exit $failed
fi
echo 1..4
read -r _ found <<<"$(perplexity models/demo.gguf full f32)"
check 'F16 file, FP32 cache' "${found:-}" 26.319848788413623 0.05
read -r _ found <<<"$(perplexity models/demo.gguf llama f32)"
check "F16 file, FP32 cache, llama.cpp's windows" "${found:-}" 24.95941175139262 0.05
read -r _ found <<<"$(perplexity models/demo.gguf llama f16)"
check "F16 file, FP16 cache, llama.cpp's windows (another engine)" "${found:-}" 24.9593 0.05
read -r _ found <<<"$(perplexity "$data/demo-q4_k_m.gguf" llama f16)"
check "Q4_K_M file, FP16 cache, llama.cpp's windows (another engine)" "${found:-}" 25.7675 0.5
exit $failed
