# shellcheck shell=bash
# For images whose entrypoint makes the build user: gives that user the build directory before the entrypoint runs.
#
# Arguments: uid, gid, then the words of the program to run, the entrypoint first. This text comes after give_ssh.sh in
# one program.
#
# The entrypoint runs in the environment of the container, as with `docker run`. This text comes after environment.sh, too.
set -e
ndp_uid=$1 ndp_gid=$2
shift 2
# If the directory already belongs to that user, it is not changed.
[ "$(stat -c %u:%g .)" = "$ndp_uid:$ndp_gid" ] || chown "$ndp_uid:$ndp_gid" .
# If the uid or the gid is 0, the entrypoint stays root. Otherwise it makes a user. It does not copy /etc/skel into a
# home directory that already exists, so that is done here.
if [ "$ndp_uid" = 0 ] || [ "$ndp_gid" = 0 ]; then
  ndp_home=/root
else
  ndp_home=/home/nerves
  if [ -d /nerves/ssh ] || [ -d "$ndp_home" ]; then
    mkdir -p "$ndp_home"
    cp -a /etc/skel/. "$ndp_home/" 2>/dev/null || :
    ndp_here=$(stat -c %d "$ndp_home")
    find "$ndp_home" -xdev -printf '%D %p\0' | sed -zn "s/^$ndp_here //p" | xargs -0r chown -h "$ndp_uid:$ndp_gid"
  fi
fi
ndp_give_ssh "$ndp_home" "$ndp_uid" "$ndp_gid"
# If the output is a terminal, the shell runs on it, so the terminal must belong to the build user.
[ ! -t 1 ] || chown "$ndp_uid" "/proc/$$/fd/1"
ndp_with=()
ndp_read_environment /nerves-docker-port/environment
exec "${ndp_with[@]}" "$@"
