#!/usr/bin/env bash
# unpack_maven.sh FOLDER ARTIFACT VERSIONS...
# Puts the newest artifacts (group:name) of Maven that lie in ranges of versions, with every library that they need, into
# FOLDER/libs. Nothing is installed; the repository is the one that this machine's Maven uses.
set -euo pipefail
folder=$(readlink -m "$1")
shift
[ -e "$folder/.complete" ] && exit 0
for program in mvn java; do
    command -v $program >/dev/null || { echo "unpack_maven.sh: $program is needed to fetch and to run $1" >&2; exit 1; }
done

dependencies=
while [ $# -gt 0 ]; do
    dependencies+="
    <dependency>
      <groupId>${1%%:*}</groupId>
      <artifactId>${1#*:}</artifactId>
      <version>$2</version>
    </dependency>"
    shift 2
done
rm -rf "$folder" "$folder.maven"
mkdir -p "$folder" "$folder.maven"
cat >"$folder.maven/pom.xml" <<POM
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>cdc</groupId>
  <artifactId>servers</artifactId>
  <version>1</version>
  <dependencies>$dependencies
  </dependencies>
</project>
POM
mvn --quiet --batch-mode --file "$folder.maven/pom.xml" \
    dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$folder/libs" >&2
rm -rf "$folder.maven"
chmod -R a+rX "$folder"
touch "$folder/.complete"
