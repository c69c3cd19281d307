# shellcheck shell=bash
# Finds out whether the files that `make system` packs have changed since it packed them.
#
# Arguments: `note` or `check`, then the directories outside of the build directory that `make system` may read, the
# package's directory first. `note` saves the state of the files before `make system` runs. `check` succeeds if packing
# again would give the same archive.
#
# In the build directory, `check` looks for files that have changed since the packing ended (copy.sh). It uses the time of
# the last change of the inode, which no program can set back (GNU find, "-newerXY"). For the other directories it
# compares a list of all files with their sizes and times, because these times may come from another clock. The list has
# the directories, too, with their modes and owners, because an overlay is packed with these, but without their times,
# which change when Mix writes a file. The list leaves out the files that Mix itself writes there: .nerves, _build, deps
# and the logs. It includes other file systems that are mounted below these directories, because `make system` sees
# them.
set -e
ndp_what=$1
shift
ndp_list() {
  find "$@" '(' -path "$1/.nerves" -o -path "$1/_build" -o -path "$1/deps" -o -name .git ')' -prune \
    -o -type d -printf '%p %y %m %U %G\0' \
    -o ! -path "$1/build.log" ! -path "$1/archive.log" ! -path "$1/run.log" \
    -printf '%p %y %m %s %T@ %C@ %l\0' | LC_ALL=C sort -z | sha256sum
}
if [ "$ndp_what" = note ]; then
  ndp_list "$@" >/nerves-docker-port/tmp/inputs
else
  [ "$(ndp_list "$@")" = "$(cat /nerves-docker-port/tmp/inputs)" ]
  ndp_changed=$(find . -xdev -newercm /nerves-docker-port/tmp/packed -print -quit)
  [ -z "$ndp_changed" ]
fi
