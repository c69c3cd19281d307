# shellcheck shell=bash
# What `make system` packs: noted before it packs, and compared afterwards.
#
# Arguments: `note` or `check`, then the directories outside of the build directory that `make system` may read, the
# package's first. `check` ends well where packing again would give the same archive.
#
# The build directory itself is asked for what has changed since the last step ended, by the time of the last change of
# the inode, which no program sets back (GNU find, "-newerXY"). Of the other directories a list of all files with size
# and times is compared, because their times may come from another clock, and of all directories in them with mode and
# owner: an overlay is packed with these. What Mix itself writes there is left out: .nerves, _build, deps and the logs. A
# directory's own time changes with those, so it is not in the list. Other file systems that are mounted below these
# directories are looked at, too, because `make system` sees them.
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
  ndp_list "$@" >/tmp/nerves-docker-port.inputs
else
  [ "$(ndp_list "$@")" = "$(cat /tmp/nerves-docker-port.inputs)" ]
  ndp_changed=$(find . -xdev -newercc /nerves-docker-port/ended -print -quit)
  [ -z "$ndp_changed" ]
fi
