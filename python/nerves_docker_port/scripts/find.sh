# shellcheck shell=bash
# Finds a file or directory of the build tree. Arguments: the build directory, a path relative to it.
#
# Prints the path without symbolic links in it, and a NUL. Ends with 3 where there is nothing of this name; where it is a
# symbolic link to nothing, its target is printed. Ends with 4 where the path leads out of the build tree, and with 5 where
# it is a socket, a named pipe or a device: the engine hands some of them over as nothing at all.
ndp_tree=$(realpath -e -- "$1")
# A name may end with newlines, which `$(...)` would take away.
if ! ndp_found=$(realpath -e -- "$1/$2" 2>/dev/null && printf x); then
  ndp_target=$(readlink -- "$1/$2" && printf x)
  printf '%s\0' "${ndp_target%$'\n'x}"
  exit 3
fi
ndp_found=${ndp_found%$'\n'x}
printf '%s\0' "$ndp_found"
case $ndp_found in
  "$ndp_tree" | "$ndp_tree"/*) ;;
  *) exit 4 ;;
esac
[ -f "$ndp_found" ] || [ -d "$ndp_found" ] || exit 5
