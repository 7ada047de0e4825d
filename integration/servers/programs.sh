#!/usr/bin/env bash
# Installs what `make servers` fetches and runs servers with, where it is missing and this may be done: npm, Java with its
# compiler, Maven.
set -euo pipefail
missing=()
command -v npm >/dev/null || missing+=(npm)
command -v javac >/dev/null || missing+=(default-jdk-headless)
command -v mvn >/dev/null || missing+=(maven)
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "programs.sh: install ${missing[*]} first; some of the servers that the tests run on need them" >&2
    exit 1
fi
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
