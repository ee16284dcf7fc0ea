#!/bin/sh
# check_ptx.sh FILE.ptx...: fails where compiled kernels break the numerical contract (flushed denormals, approximate functions, arithmetic that is not rounded to nearest) or ask for more
# than an M40 and an old driver have (PTX 6.0, sm_52).
set -eu

failed=0
# complain FILE PATTERN WHAT
complain() {
    if grep -nE "$2" "$1" >&2; then
        echo "check_ptx.sh: $1: $3" >&2
        failed=1
    fi
}

[ $# -gt 0 ] || { echo "usage: check_ptx.sh FILE.ptx..." >&2; exit 2; }
for file in "$@"; do
    complain "$file" '^[^/]*\.ftz' 'flushes denormals'
    complain "$file" '^[^/]*\.approx' 'approximate arithmetic'
    complain "$file" '[[:space:]](mul|add|sub|fma|mad|div|sqrt|rcp)(\.r[zmp])?(\.sat)?\.f(32|64)[[:space:]]' 'arithmetic without .rn'
    complain "$file" '[[:space:]]cvt\.r[zmp]\.f(16|32)\.' 'a conversion that is not rounded to nearest'
    grep -qE '^\.target (sm|compute)_52\b' "$file" || complain "$file" '^\.target' 'made for something else than sm_52'
    version=$(sed -n 's/^\.version \([0-9]*\)\.\([0-9]*\).*/\1\2/p' "$file")
    if [ -z "$version" ] || [ "$version" -gt 60 ]; then
        complain "$file" '^\.version' 'needs a newer PTX than 6.0'
    fi
done
exit $failed
