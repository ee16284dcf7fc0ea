#!/usr/bin/env bash
# list.sh BUILD SAN (quick|check|full|device): the tests for tests/run.sh, one a line: name, seconds, command.
# BUILD, SAN: build folders, the second with sanitizers (may be absent: then its tests are left out). The longest come first.
#
# quick: units and replays. check: what `make check` runs. full: all windows and seeds. device: what a machine with a card and no compiler runs (make bundle).
set -eu
build=$1
san=$2
mode=$3
emu=M40LLM_CUDA_LIB=$build/libcuda-emu.so
emu_san=M40LLM_CUDA_LIB=$san/libcuda-emu.so

units() { # FOLDER PREFIX
    local program name
    for program in "$1"/tests/test_*; do
        [ -x "$program" ] && [ ! -d "$program" ] || continue
        name=${program##*/}
        case $program in *.d | */test_golden | */test_cli) continue ;; esac
        case $2$name$mode in # the longest of them; what they run is in the others
        san-test_neighbourscheck | san-test_cuda_attentioncheck | san-test_embeddingscheck) continue ;;
        esac
        echo "$2$name 120 $program"
    done
}
replays() {
    local program
    for program in "$1"/tests/replay_*; do
        [ -x "$program" ] || continue
        echo "$2${program##*/} 60 tools/tap.sh 'the ${program##*/replay_} corpus' $program tests/fuzz/corpus/${program##*/replay_}"
    done
}

case $mode in
quick)
    units "$build" ''
    replays "$build" ''
    exit
    ;;
esac

seeds=1
san_seeds=1
whole=' --thin' # emulated models: two plans each
[ "$mode" = full ] && seeds='1 2 3 4' && san_seeds='1 2 3' && whole=

if [ "$mode" != device ]; then
    for seed in $seeds; do
        echo "parity-emu-seed$seed 400 $emu M40LLM_EMU_SEED=$seed $build/tests/m40-parity --backend cuda"
        echo "parity-cublas-emu-seed$seed 400 M40LLM_CUDA_LIB=$build/libcuda-emu-test.so M40LLM_EMU_SEED=$seed M40LLM_ENABLE_CUBLAS=1 M40LLM_CUBLAS_LIB=$build/libcublas-fake.so $build/tests/m40-parity --backend cuda --test 'matmul ' --thin"
        echo "golden-emu-seed$seed 400 $emu M40LLM_EMU_SEED=$seed M40LLM_TEST_DEVICE=cuda $build/tests/test_golden$whole"
    done
    if [ -d "$san" ]; then
        for seed in $san_seeds; do
            echo "san-parity-emu-seed$seed 400 $emu_san M40LLM_EMU_SEED=$seed $san/tests/m40-parity --backend cuda --thin"
            model=$([ $((seed % 2)) = 1 ] && echo llama_f16 || echo qwen3) # whole models are slow there
            echo "san-golden-emu-seed$seed 400 $emu_san M40LLM_EMU_SEED=$seed M40LLM_TEST_DEVICE=cuda $san/tests/test_golden --thin --models $model"
        done
        echo "san-parity-avx2 400 $san/tests/m40-parity --backend cpu-avx2 --thin"
        echo "san-parity-avx512 400 $san/tests/m40-parity --backend cpu-avx512 --thin"
        echo "san-golden-cpu 400 M40LLM_TEST_THIN=1 $san/tests/test_golden"
    fi
fi
if [ "$mode" = full ]; then
    echo "perplexity-cpu 900 tests/perplexity.sh $build/m40llm cpu 64"
    echo "perplexity-emu 3000 $emu tests/perplexity.sh $build/m40llm cuda 8"
    [ -d "$san" ] && echo "san-cli 600 M40LLM_BIN=$san/m40llm $san/tests/test_cli"
else
    echo "perplexity-cpu 400 tests/perplexity.sh $build/m40llm cpu $([ "$mode" = device ] && echo 64 || echo 4)"
fi
if [ "$mode" = device ]; then
    echo "same-text-gpu 60 tools/tap.sh 'the same text on the CPU and on the card' tests/same_text.sh $build/m40llm"
else
    echo "same-text-emu 60 tools/tap.sh 'the same text on the CPU and through the emulated driver' $emu tests/same_text.sh $build/m40llm"
fi
if [ "$mode" = device ] && [ -n "${M40LLM_CUBLAS_LIB:-}" ]; then
    echo "parity-cublas-gpu 400 M40LLM_ENABLE_CUBLAS=1 $build/tests/m40-parity --backend cuda --test 'matmul '"
fi
[ "$mode" = device ] && echo "perplexity-gpu 400 tests/perplexity.sh $build/m40llm cuda 64"
echo "golden-cpu 400 $build/tests/test_golden"
[ "$mode" != check ] && echo "golden-scalar 400 M40LLM_TEST_LEVEL=scalar M40LLM_TEST_THIN=1 $build/tests/test_golden" # parity has its bits
echo "golden-avx2 400 M40LLM_TEST_LEVEL=avx2 M40LLM_TEST_THIN=1 $build/tests/test_golden"
echo "parity-avx2 400 $build/tests/m40-parity --backend cpu-avx2"
echo "parity-avx512 400 $build/tests/m40-parity --backend cpu-avx512"
# On a card, where there is one; skipped, or with M40LLM_REQUIRE_GPU=1 failed, where there is none.
echo "parity-gpu 400 $build/tests/m40-parity --backend cuda"
echo "golden-gpu 400 M40LLM_TEST_DEVICE=cuda $build/tests/test_golden"
echo "neighbours-gpu 120 M40LLM_TEST_DEVICE=cuda $build/tests/test_neighbours"
[ -x "$build/tests/test_cli" ] && echo "cli 200 M40LLM_BIN=$build/m40llm $build/tests/test_cli"
if [ "$mode" != device ]; then # they are in Python
    echo "chat 100 M40LLM_BIN=$build/m40llm python3 tests/cli/test_chat.py"
    echo "server 100 M40LLM_BIN=$build/m40llm python3 tests/server/test_server.py"
    echo "server-completions 100 M40LLM_BIN=$build/m40llm python3 tests/server/test_completions.py"
    [ -d "$san" ] && echo "san-chat 200 M40LLM_BIN=$san/m40llm python3 tests/cli/test_chat.py"
    echo "server-page 120 M40LLM_BIN=$build/m40llm python3 tests/server/test_page.py"
    for t in access bad_input gpu_metrics; do
        echo "server-$t 100 M40LLM_BIN=$build/m40llm python3 tests/server/test_$t.py"
        [ $t = gpu_metrics ] || [ ! -d "$san" ] || echo "san-server-$t 200 M40LLM_BIN=$san/m40llm python3 tests/server/test_$t.py" # the emulated driver is slow there
    done
    for t in embeddings leaving many; do
        echo "server-$t 100 M40LLM_BIN=$build/m40llm python3 tests/server/test_$t.py"
    done
    client=$build/openai/bin/python # make check-openai makes it; skipped where it is not
    [ -x "$client" ] || client=python3
    echo "server-openai 100 M40LLM_BIN=$build/m40llm $client tests/server/test_openai.py"
    [ -d "$san" ] && echo "san-server 200 M40LLM_BIN=$san/m40llm python3 tests/server/test_server.py"
    [ -d "$san" ] && echo "san-server-completions 400 M40LLM_BIN=$san/m40llm python3 tests/server/test_completions.py"
    [ -d "$san" ] && echo "san-server-embeddings 200 M40LLM_BIN=$san/m40llm python3 tests/server/test_embeddings.py"
fi
units "$build" ''
replays "$build" ''
if [ "$mode" != device ] && [ -d "$san" ]; then
    units "$san" san-
    replays "$san" san-
fi
if [ "$mode" != device ]; then
    echo "server-thoughts 60 M40LLM_BIN=$build/m40llm python3 tests/server/test_thoughts.py"
    echo "bench-emu 60 $emu tools/tap.sh 'bench-kernels runs every operation' $build/bench-kernels --quick"
    cublas="M40LLM_ENABLE_CUBLAS=1 M40LLM_CUBLAS_LIB=$build/libcublas-fake.so"
    echo "bench-cublas-emu 60 M40LLM_CUDA_LIB=$build/libcuda-emu-test.so $cublas tools/tap.sh 'bench-kernels times cuBLAS' $build/bench-kernels --quick --ops cublas,sgemm"
    echo "bench-curve-emu 60 $emu tools/tap.sh 'bench-kernels draws the curve' $build/bench-kernels --quick --curve"
    [ -d "$san" ] && echo "san-bench-emu 60 $emu_san tools/tap.sh 'bench-kernels runs every operation' $san/bench-kernels --quick --json"
    echo "install 60 tools/tap.sh 'make install, and the service' tools/check_install.sh $build"
    echo "layers 30 tools/tap.sh 'no include points upward' tools/check_layers.sh"
    echo "ptx 60 tools/tap.sh 'PTX rounds as the contract says' tools/check_ptx.sh $build/ptx/*.ptx"
fi
