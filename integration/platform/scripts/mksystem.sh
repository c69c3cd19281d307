#!/usr/bin/env bash
# mksystem.sh NAME: pack the artifact $BASE_DIR/NAME.tar.gz; all its members are below NAME/. Must be run in Buildroot's tree.
set -e

NAME=$1
if [[ -z $NAME ]]; then
  echo "ERROR: Please specify an archive name"
  exit 1
fi
PLATFORM=$(cd .. && pwd -P)
WORK=$BASE_DIR/tmp-system
rm -rf "$WORK"
mkdir -p "$WORK/$NAME"
cp "$BASE_DIR/.config" "$PLATFORM/nerves_env.exs" "$WORK/$NAME"
cp -R "$BASE_DIR/images" "$BASE_DIR/staging" "$PLATFORM/scripts" "$WORK/$NAME"
cp "$PLATFORM/VERSION" "$WORK/$NAME/nerves-system.tag"
tar -czf "$BASE_DIR/$NAME.tar.gz" -C "$WORK" "$NAME"
rm -rf "$WORK"
