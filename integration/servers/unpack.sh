#!/usr/bin/env bash
# unpack.sh SUITE FOLDER PACKAGE...
# Unpacks Debian packages of any suite, with every library that they need, into a folder. Nothing is installed, and the
# system's packages stay as they are; the mirror is the one that this machine's apt uses. No version is pinned, since a suite
# lets go of one when it gets the next; apt verifies the suite's signature, and with it the hash of each package.
set -euo pipefail
suite=$1 folder=$(readlink -m "$2")
shift 2
[ -e "$folder/.complete" ] && exit 0
command -v apt-get >/dev/null || { echo "unpack.sh: apt-get is needed to fetch $*" >&2; exit 1; }
site() { apt-get indextargets --format '$(SITE)' 'Origin: Debian' | sort | uniq -c | sort -rn | awk 'NR == 1 { print $2 }'; }
mirror=$(site)
if [ -z "$mirror" ] && [ "$(id -u)" = 0 ]; then
    apt-get -qq update
    mirror=$(site)
fi
[ -n "$mirror" ] || { echo "unpack.sh: apt knows no Debian mirror; run apt-get update" >&2; exit 1; }

apt=$folder.apt
rm -rf "$folder" "$apt"
mkdir -p "$folder" "$apt"/{lists/partial,cache/archives/partial}
: >"$apt/status"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$apt/sources.list"
options=(-qq -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$apt/lists"
    -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache" -o Debug::NoLocking=1)
apt-get "${options[@]}" update
apt-get "${options[@]}" -y --no-install-recommends --download-only install "$@" >/dev/null
for package in "$apt"/cache/archives/*.deb; do dpkg -x "$package" "$folder"; done
rm -rf "$apt"
chmod -R a+rX "$folder"
touch "$folder/.complete"
