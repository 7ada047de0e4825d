#!/usr/bin/env bash
# unpack_maven.sh FOLDER SUMS ARTIFACT VERSION...
# Puts artifacts (group:name) of Maven, with every library that they need, into FOLDER/libs, if these are the files of
# SUMS (made by `sha256sum *.jar` there), and no others. Nothing is installed; the repository is the one that this machine's
# Maven uses.
set -euo pipefail
folder=$(readlink -m "$1") sums=$(readlink -e "$2")
shift 2
cmp --silent "$sums" "$folder/.complete" && exit 0
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
rm -rf "$folder".{maven,new,old}
mkdir -p "$folder".{maven,new}
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
mvn --quiet --batch-mode --strict-checksums --file "$folder.maven/pom.xml" \
    org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
    -DincludeScope=runtime "-DoutputDirectory=$folder.new/libs" >&2
rm -rf "$folder.maven"
(cd "$folder.new/libs" && LC_ALL=C && sha256sum -- *.jar) >"$folder.new/.complete"
diff "$sums" "$folder.new/.complete" >&2 || { echo "unpack_maven.sh: $folder.new/libs are not the files of $sums" >&2; exit 1; }
chmod -R a+rX "$folder.new"
[ ! -e "$folder" ] || mv "$folder" "$folder.old" # servers that run from it go on
mv "$folder.new" "$folder"
rm -rf "$folder.old"
