#!/usr/bin/env bash
# unpack_maven.sh FOLDER ARTIFACT VERSIONS
# Puts the newest artifact (group:name) of Maven that lies in a range of versions, with every library that it needs, into
# FOLDER/libs. Nothing is installed; the repository is the one that this machine's Maven uses.
set -euo pipefail
folder=$(readlink -m "$1") artifact=$2 versions=$3
[ -e "$folder/.complete" ] && exit 0
for program in mvn java; do
    command -v $program >/dev/null || { echo "unpack_maven.sh: $program is needed to fetch and to run $artifact" >&2; exit 1; }
done

rm -rf "$folder" "$folder.maven"
mkdir -p "$folder" "$folder.maven"
cat >"$folder.maven/pom.xml" <<POM
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>cdc</groupId>
  <artifactId>servers</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>${artifact%%:*}</groupId>
      <artifactId>${artifact#*:}</artifactId>
      <version>$versions</version>
    </dependency>
  </dependencies>
</project>
POM
mvn --quiet --batch-mode --file "$folder.maven/pom.xml" \
    dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$folder/libs" >&2
rm -rf "$folder.maven"
chmod -R a+rX "$folder"
touch "$folder/.complete"
