# shellcheck shell=bash
# Finds a file or directory of the build tree. Arguments: the build directory, a path relative to it.
#
# Prints a NUL, the path after resolving all symbolic links, and a NUL. The first NUL separates the path from what else is
# in the output: ld.so(8) complains there of a bad LD_PRELOAD. Ends with status 3 if the path does not exist. If the
# path is a symbolic link whose target does not exist, that target is printed then. Ends with status 4 if the path leads
# out of the build tree, and with status 5 if the path is a socket, a named pipe or a device, because the engine gives
# nothing for some of them.
ndp_tree=$(realpath -e -- "$1")
# A name can end with newlines, which `$(...)` would remove. So an x is printed after it.
if ! ndp_found=$(realpath -e -- "$1/$2" 2>/dev/null && printf x); then
  ndp_target=$(readlink -- "$1/$2" && printf x)
  printf '\0%s\0' "${ndp_target%$'\n'x}"
  exit 3
fi
ndp_found=${ndp_found%$'\n'x}
printf '\0%s\0' "$ndp_found"
case $ndp_found in
  "$ndp_tree" | "$ndp_tree"/*) ;;
  *) exit 4 ;;
esac
[ -f "$ndp_found" ] || [ -d "$ndp_found" ] || exit 5
