#!/bin/sh
# find_ptxas.sh CACHE_DIR [PTXAS]: prints the path of a ptxas that assembles for sm_52, or nothing. It is tried, not asked for its version. The answer is kept in CACHE_DIR while
# the candidates stay the same, so that why there is none is said once.
set -eu

cache_dir=$1
wanted=${2:-}
if [ "$wanted" = none ]; then
    exit 0
fi
mkdir -p "$cache_dir"
cache=$cache_dir/ptxas.cache
candidates=${wanted:-"$(ls .cuda-tools/ptxas 2>/dev/null || true) $(command -v ptxas || true)"}
key="for: $candidates"
if [ -f "$cache" ] && [ "$(head -n 1 "$cache")" = "$key" ]; then
    tail -n +2 "$cache"
    exit 0
fi

try=$(mktemp -d)
trap 'rm -rf "$try"' EXIT
printf '.version 6.0\n.target sm_52\n.address_size 64\n.visible .entry k()\n{\nret;\n}\n' >"$try/k.ptx"
found=
for ptxas in $candidates; do
    if "$ptxas" -arch=sm_52 -o "$try/k.cubin" "$try/k.ptx" >"$try/log" 2>&1; then
        found=$ptxas
        break
    fi
    release=$("$ptxas" --version 2>/dev/null | sed -n 's/.*release \([0-9.]*\).*/\1/p')
    case $release in
    1[3-9].*) why="CUDA 13 removed Maxwell" ;;
    *) why=$(head -n 1 "$try/log") ;;
    esac
    echo "note: $ptxas${release:+ (CUDA $release)} cannot assemble for sm_52: $why" >&2
done
if [ -n "$found" ]; then
    echo "note: sm_52 machine code by $found" >&2
else
    echo "note: no ptxas for sm_52: only PTX is embedded, and the driver compiles it (tools/get_ptxas.sh can fetch one)" >&2
fi
printf '%s\n' "$key" $found >"$cache"
echo "$found"
