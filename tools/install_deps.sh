#!/usr/bin/env bash
# install_deps.sh [build|test]: installs the Debian/Ubuntu packages that are missing, and says which. Does nothing where all are there.
set -eu
build="build-essential pkg-config clang libpcre2-dev libutf8proc-dev libjansson-dev libmicrohttpd-dev"
test="libcmocka-dev python3 openssl"
want=$build
[ "${1:-build}" = test ] && want="$build $test"

have() { # clang and python3 may be there from elsewhere; everything else goes by its package
    case $1 in
    clang) command -v "${CLANG:-clang}" >/dev/null 2>&1 ;;
    python3) command -v python3 >/dev/null 2>&1 ;;
    *) dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed' ;;
    esac
}

missing=
for package in $want; do
    have "$package" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
    echo "missing:$missing (no apt-get here: install what your system calls them)" >&2
    exit 1
fi
echo "installing the missing packages:$missing"
root=
if [ "$(id -u)" != 0 ]; then
    root=sudo
fi
export DEBIAN_FRONTEND=noninteractive
$root apt-get -qq update
# shellcheck disable=SC2086
$root apt-get -qq install -y --no-install-recommends $missing >/dev/null
