#!/usr/bin/env bash
# tap.sh NAME COMMAND...: one command as one TAP test.
name=$1
shift
echo 1..1
if env "$@"; then echo "ok 1 - $name"; else echo "not ok 1 - $name"; exit 1; fi
