#!/usr/bin/env bash
# Become the user that UID and GID in the environment describe, then run the arguments; stay root where either is 0 or unset.
# (Bash keeps UID from the environment; only without one it is the process's own.)
set -e

if [[ ${UID:-0} == 0 || ${GID:-0} == 0 ]]; then
  exec "$@"
fi

echo "Setting User"
echo "UID: $UID"
echo "GID: $GID"
groupadd --non-unique --gid "$GID" nerves
useradd --non-unique --gid "$GID" --uid "$UID" --create-home nerves
echo "Switching user"
export HOME=/home/nerves
setpriv --reuid "$UID" --regid "$GID" --init-groups -- "$@"
