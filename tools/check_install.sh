#!/usr/bin/env bash
# check_install.sh BUILD: `make install` into a folder; what it installs works, and systemd, where it is there, has nothing against the service.
set -eu
build=$1
to=$(mktemp -d)
trap 'rm -rf "$to"' EXIT
${MAKE:-make} --no-print-directory -s BUILD="$build" PREFIX="$to/usr" install
"$to/usr/bin/m40llm" --version
cat >"$to/user.c" <<'C'
#include <m40llm.h>
#include <stdio.h>
int main(void) { return puts(m40llm_version()) < 0; }
C
${CC:-cc} -I"$to/usr/include" "$to/user.c" -L"$to/usr/lib" -lm40llm -Wl,-rpath,"$to/usr/lib" -o "$to/user"
"$to/user"
unit=$to/usr/lib/systemd/system/m40llm.service
grep -q "^ExecStart=$to/usr/bin/m40llm serve" "$unit"
if grep -n '@[A-Z]*@' "$unit"; then
    echo 'names that make install did not replace' >&2
    exit 1
fi
if ! systemd-analyze --version >/dev/null 2>&1; then
    echo 'no systemd-analyze here: the service is not looked at'
else
    systemd-analyze verify "$unit"
    # Of 100, less is better; 18 with version 252. Old versions cannot look at a file.
    if systemd-analyze security --help 2>/dev/null | grep -q -- --threshold; then
        systemd-analyze security --offline=true --threshold=25 "$unit" | tail -n 1
    fi
fi
${MAKE:-make} --no-print-directory -s BUILD="$build" PREFIX="$to/usr" uninstall
if find "$to/usr" -type f | grep .; then
    echo 'make uninstall left these' >&2
    exit 1
fi
