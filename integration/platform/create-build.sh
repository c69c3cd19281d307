#!/usr/bin/env bash
# create-build.sh DEFCONFIG BUILD_DIR: make the build directory.
#
# It does what the script of nerves_system_br does and a build runner has to cope with:
#   - it writes a Config.in beside the defconfig if there is none, so it writes to the package's directory;
#   - it "downloads" Buildroot into $NERVES_BR_DL_DIR (it packs it from upstream/, nothing is fetched);
#   - it unpacks Buildroot into the platform's directory, with a state file, and again when the state has changed;
#   - it writes a Makefile and a .config to the build directory.
set -e

VERSION=2026.05

if [[ -z $1 ]]; then
  echo "Usage: $0 DEFCONFIG [BUILD_DIR]"
  exit 1
fi
PLATFORM=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
DEFCONFIG=$(readlink -f "$1")
BUILD_DIR=${2:-o/$(basename -s _defconfig "$1")}
if [[ ! -f $DEFCONFIG ]]; then
  echo "ERROR: Can't find $1. Please check that it exists."
  exit 1
fi

mkdir -p "$BUILD_DIR"
BUILD_DIR=$(readlink -f "$BUILD_DIR")

config_in=$(dirname "$DEFCONFIG")/Config.in
if [[ ! -e $config_in ]]; then
  echo "# Add the package's own packages for Buildroot here" >"$config_in"
fi

: "${NERVES_BR_DL_DIR:=$HOME/.nerves/dl}"
mkdir -p "$NERVES_BR_DL_DIR"

# The state names the version and the patches of the unpacked tree. If either changes, Buildroot is unpacked again.
state=$BUILD_DIR/.nerves-expected-br-state
{
  echo "$VERSION"
  cat "$PLATFORM"/patches/*.patch 2>/dev/null | sha256sum
} >"$state"

unpack_buildroot() {
  local archive=$NERVES_BR_DL_DIR/buildroot-$VERSION.tar.gz
  if [[ ! -e $archive ]]; then
    echo "Downloading buildroot-$VERSION..."
    tar -czf "$archive.tmp" -C "$PLATFORM/upstream" "buildroot-$VERSION"
    mv "$archive.tmp" "$archive"
  fi
  rm -rf "$PLATFORM"/buildroot*
  tar -xzf "$archive" -C "$PLATFORM" --no-same-owner
  ln -s "buildroot-$VERSION" "$PLATFORM/buildroot"
  ln -sfn "$NERVES_BR_DL_DIR" "$PLATFORM/buildroot/dl"
  cp "$state" "$PLATFORM/buildroot/.nerves-br-state"
}

if [[ ! -e $PLATFORM/buildroot/.nerves-br-state ]]; then
  unpack_buildroot
elif ! cmp -s "$state" "$PLATFORM/buildroot/.nerves-br-state"; then
  echo "Detected a difference in the Buildroot source tree. It will be updated."
  unpack_buildroot
fi

make --no-print-directory -C "$PLATFORM/buildroot" O="$BUILD_DIR" BR2_EXTERNAL="$PLATFORM" DEFCONFIG="$DEFCONFIG" defconfig

echo "------------"
echo
echo "Build directory successfully created."
echo
echo "Configuration: $DEFCONFIG"
