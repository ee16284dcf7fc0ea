#!/bin/sh
# Puts ptxas, nvdisasm and cuobjdump of the distribution's CUDA toolkit (which still knows sm_52) into .cuda-tools/, without installing anything. Debian 12 and 13 have
# such a toolkit in non-free, Ubuntu 22.04 and 24.04 in multiverse. Nothing needs this: with a ptxas the build embeds machine code beside the PTX, without one the
# driver compiles the PTX.
set -eu

cd "$(dirname "$0")/.."
out=.cuda-tools
work=$(mktemp -d)
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT

. /etc/os-release
case "$ID:${VERSION_CODENAME:-}" in
debian:bookworm | debian:trixie) extra="contrib non-free" ;;
ubuntu:jammy | ubuntu:noble) extra="universe multiverse" ;;
*)
    echo "get_ptxas.sh: no CUDA toolkit with sm_52 is known for $ID ${VERSION_CODENAME:-}; give ptxas of CUDA 11.0-12.9 by PTXAS=path" >&2
    exit 1
    ;;
esac

# The mirror that this system uses already.
mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' | awk -v c="$VERSION_CODENAME" '$2 == c { print $1; exit }')
[ -n "$mirror" ] || mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
[ -n "$mirror" ] || { echo "get_ptxas.sh: apt has no package source" >&2; exit 1; }
keyring=$(ls /usr/share/keyrings/"$ID"-archive-keyring.gpg)
echo "deb [signed-by=$keyring] $mirror $VERSION_CODENAME main $extra" >"$work/sources.list"

mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/unpacked" "$out"
private="-o Dir::Etc::sourcelist=$work/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$work/lists -o Dir::Cache=$work/cache -o Acquire::Languages=none"
here=$(pwd)
# shellcheck disable=SC2086
apt-get $private -qq update
# shellcheck disable=SC2086
(cd "$work" && apt-get $private -qq -o APT::Sandbox::User= download nvidia-cuda-toolkit)
dpkg --fsys-tarfile "$work"/nvidia-cuda-toolkit_*.deb | tar -x -C "$work/unpacked" --wildcards '*/bin/ptxas' '*/bin/nvdisasm' '*/bin/cuobjdump'
find "$work/unpacked" -type f \( -name ptxas -o -name nvdisasm -o -name cuobjdump \) -exec install -m 755 {} "$here/$out/" \;
"$out/ptxas" --version | tail -n 2
