# shellcheck shell=bash
# For images whose entrypoint makes the build user: it must find the build directory to be that user's. Arguments: uid,
# gid, then the words of the program to run, the entrypoint first. Stands behind give_ssh.sh in one program.
#
# Names of variables begin with ndp_, because the steps must see every other name as it was given to the container.
set -e
ndp_uid=$1 ndp_gid=$2
shift 2
# A directory that belongs to that user already is not touched.
[ "$(stat -c %u:%g .)" = "$ndp_uid:$ndp_gid" ] || chown "$ndp_uid:$ndp_gid" .
# Where either is 0, the entrypoint stays root. Otherwise it makes a user, and does not furnish a home that is there.
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
# A shell's terminal is the shell's.
[ ! -t 1 ] || chown "$ndp_uid" "/proc/$$/fd/1"
exec "$@"
