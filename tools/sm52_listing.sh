#!/bin/sh
# sm52_listing.sh PTXAS NVDISASM PTX...: the sm_52 code of each PTX file as sm52-cost reads it, on stdout. For each kernel a line
#     //sm52 kernel=NAME registers=N shared=BYTES threads=N
# (from ptxas -v and the PTX's .maxntid), then what nvdisasm prints, without its spare blanks.
set -eu

[ $# -ge 3 ] || { echo "usage: sm52_listing.sh PTXAS NVDISASM PTX..." >&2; exit 2; }
ptxas=$1 nvdisasm=$2
shift 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for ptx; do
    "$ptxas" -arch=sm_52 --fmad=false -v -o "$work/cubin" "$ptx" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
    awk '
        FNR == NR { # the PTX
            if (match($0, /\.entry +[A-Za-z0-9_$]+/)) { name = substr($0, RSTART, RLENGTH); sub(/\.entry +/, "", name) }
            if ($1 == ".maxntid") { gsub(/,/, " "); threads[name] = $2 * ($3 ? $3 : 1) * ($4 ? $4 : 1) }
            next
        }
        /Compiling entry function/ { split($0, part, "\047"); name = part[2] }
        /Used [0-9]+ registers/ {
            shared = 0
            for (i = 2; i <= NF; i++) {
                if ($i ~ /^registers/) registers = $(i - 1)
                if ($i ~ /^smem/) shared = $(i - 2)
            }
            printf "//sm52 kernel=%s registers=%d shared=%d threads=%d\n", name, registers, shared, name in threads ? threads[name] : 1024
        }' "$ptx" "$work/log"
    "$nvdisasm" -c "$work/cubin" | sed -e 's/[ 	][ 	]*/ /g' -e 's/^ //' -e 's/ $//' -e '/^$/d'
done
