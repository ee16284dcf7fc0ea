#!/usr/bin/env bash
# make_bundle.sh BUILD OUT: gathers program, tests, data and every shared library beside libc into OUT.
set -eu
build=$1
out=$2
rm -rf "$out"
mkdir -p "$out/build/tests" "$out/lib" "$out/tests" "$out/models" "$out/tools"
cp "$build/m40llm" "$build"/*.so "$build"/libm40llm.so.0 "$out/build/"
find "$build/tests" -maxdepth 1 -type f -executable -exec cp {} "$out/build/tests/" \;
cp -r tests/data "$out/tests/"
mkdir -p "$out/tests/fuzz" && cp -r tests/fuzz/corpus "$out/tests/fuzz/"
cp tests/run.sh tests/list.sh tests/perplexity.sh tests/same_text.sh "$out/tests/"
cp tools/tap.sh "$out/tools/"
cp models/demo.gguf "$out/models/"
# Everything that is linked but glibc's own parts, which belong to the system (and the driver, which nothing links).
ldd "$out/build/m40llm" "$out"/build/tests/* | awk '$2 == "=>" && $3 ~ /^\// { print $3 }' | sort -u |
    grep -vE '/(libm40[^/]*|libc|libm|libdl|libpthread|librt|ld-linux[^/]*)\.so' | while read -r library; do cp -L "$library" "$out/lib/"; done
strip --strip-debug "$out"/build/m40llm "$out"/build/*.so* "$out"/build/tests/* 2>/dev/null || true
cat >"$out/m40llm" <<'S'
#!/bin/sh
here=$(cd "$(dirname "$0")" && pwd)
LD_LIBRARY_PATH=$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/build/m40llm" "$@"
S
cat >"$out/check.sh" <<'S'
#!/usr/bin/env bash
# check.sh [LOGDIR]: the tests that need no compiler, on the CPU and on the card that is here.
cd "$(dirname "$0")" || exit 1
export LD_LIBRARY_PATH=$PWD/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
tests/list.sh build none device | tests/run.sh "${1:-logs}"
S
chmod +x "$out/m40llm" "$out/check.sh"
echo "$out: $(du -sh "$out" | cut -f1); run $out/m40llm or $out/check.sh there"
