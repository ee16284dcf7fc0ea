#!/usr/bin/env bash
# run.sh LOGDIR [-j N] < LIST: runs test programs and sums up their TAP.
#
# LIST: one test a line, "NAME SECONDS COMMAND...": a name for the log, a limit, and a shell command that prints TAP (cmocka programs do,
# CMOCKA_MESSAGE_OUTPUT is set). N run at once. A program that crashes, times out, or reports fewer results than it planned counts as a failure.
# A skipped test is not a pass: with M40LLM_REQUIRE_GPU=1 the tests themselves fail where a card is missing.
# Ends with "N passed, N failed, N skipped"; exit status 1 when anything failed.
set -u
logs=$1
jobs=$(nproc 2>/dev/null || echo 2)
[ "${2:-}" = -j ] && jobs=$3
mkdir -p "$logs"
export CMOCKA_MESSAGE_OUTPUT=TAP
export OMP_WAIT_POLICY=passive # several programs share the cores: spinning would starve the others

one() {
    local name=$1 limit=$2 start end rc
    shift 2
    start=$(date +%s.%N)
    timeout -k 5 "$limit" bash -c "$*" >"$logs/$name.log" 2>&1 </dev/null
    rc=$?
    end=$(date +%s.%N)
    awk -v name="$name" -v rc="$rc" -v seconds="$(echo "$end $start" | awk '{printf "%.1f", $1 - $2}')" '
        /^1\.\.[0-9]+/ { plan += substr($1, 4) }
        /^(not )?ok .*# SKIP/ { skipped++; next }
        /^not ok/ { failed++; failures = failures "\n    " $0; next }
        /^ok/ { passed++ }
        END {
            missing = plan - passed - failed - skipped
            if (missing > 0) { failed += missing; failures = failures "\n    " missing " planned tests gave no result" }
            if (rc == 124 || rc == 137) failures = failures "\n    timed out"
            if (rc != 0 && failed == 0) { failed = 1; failures = failures "\n    exit status " rc }
            if (passed + failed + skipped == 0) { failed = 1; failures = failures "\n    no test ran" }
            printf "%d %d %d\n", passed, failed, skipped > "'"$logs/$name.sum"'"
            printf "%-44s %5d passed %3d failed %3d skipped %7ss%s\n", name, passed, failed, skipped, seconds, failures
        }' "$logs/$name.log"
    if [ "$(cut -d' ' -f2 "$logs/$name.sum")" != 0 ]; then
        echo "    last lines of $logs/$name.log:"
        tail -n 12 "$logs/$name.log" | sed 's/^/    | /'
    fi
}

rm -f "$logs"/*.sum
running=0
while read -r name limit command; do
    case $name in '' | '#'*) continue ;; esac
    one "$name" "$limit" "$command" &
    running=$((running + 1))
    if [ "$running" -ge "$jobs" ]; then
        wait -n
        running=$((running - 1))
    fi
done
wait
cat "$logs"/*.sum | awk '{ p += $1; f += $2; s += $3 } END { printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f > 0 || p == 0 }'
