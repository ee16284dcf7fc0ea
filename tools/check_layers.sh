#!/usr/bin/env bash
# check_layers.sh: fails on an #include that points upward (DESIGN: arrows go downward only).
# Each line below: a folder of src/, then the folders it may include from beside its own. m40llm.h is open to all.
set -u
cd "$(dirname "$0")/.."
rules='
base:
tensor: base
gguf: base tensor
tokenizer: base gguf
backend: base tensor
model: base tensor gguf backend
engine: base model tokenizer backend
api: base tensor gguf tokenizer backend model engine
cli: base server
server: base
'
failed=0
while IFS=: read -r folder may; do
    [ -n "$folder" ] && [ -d "src/$folder" ] || continue
    while IFS=: read -r file line include; do
        target=${include#*\"}
        target=${target%%\"*}
        case $target in m40llm.h | gen/*) continue ;; esac
        top=${target%%/*}
        [ "$top" != "$target" ] || continue # a file of the same folder
        case " $folder $may " in
        *" $top "*) ;;
        *)
            echo "$file:$line: src/$folder may not include $target" >&2
            failed=1
            ;;
        esac
    done < <(grep -rn --include='*.c' --include='*.h' --include='*.cu' '^#include "' "src/$folder")
done <<<"$rules"
exit $failed
