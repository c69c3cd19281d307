#!/bin/sh
# apply.sh DIRECTORY < PATCHES: replace each "-" line by the "+" line after it, because the images have no patch(1).
set -e
sed -n 's/^-\([^-].*\)$/-\1/p; s/^+\([^+].*\)$/+\1/p' >"$1/.patches"
while IFS= read -r old && IFS= read -r new; do
  awk -v old="${old#-}" -v new="${new#+}" '$0 == old { $0 = new } { print }' "$1/main.c" >"$1/main.c.new"
  mv "$1/main.c.new" "$1/main.c"
done <"$1/.patches"
