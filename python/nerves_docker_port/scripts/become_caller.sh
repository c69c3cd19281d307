# shellcheck shell=bash
# Runs as root, gives the image's user `nerves` the ids of the caller, and then runs a program as that user. The caller
# is the user who runs Mix.
#
# Arguments: the token of the marks, uid, gid, the package's directory, then the words of the program to run. This text
# comes after give_ssh.sh in one program.
#
# The image's user `nerves` has a fixed uid (1005 from nerves_system_br 1.28.1 on), which may not write to the package
# directory of another user (nerves #402). So `nerves` keeps its name, home and sudo rule, but gets the uid and gid of
# the caller. Its lines in the files go first, because an image may already have a user with that uid (Ubuntu's images
# have `ubuntu`, 1000), and a look-up by uid returns the first line. `usermod` would be too slow, because it walks
# through the whole home directory with the build tree.
#
# The program runs in the environment of the container, with another HOME. This text comes after environment.sh, too.
#
# Every session begins with this script, and each program that it starts takes one or two milliseconds. So it uses bash
# itself wherever that is possible.
set -e
ndp_token=$1 ndp_uid=$2 ndp_gid=$3 ndp_package=$4
shift 4
ndp_home=/home/nerves

# Sets ndp_found to the line of `nerves` in a file such as /etc/passwd, and ndp_others to all other lines.
ndp_read() {
  ndp_others=
  [ -f "$1" ] || return 0
  while IFS= read -r ndp_line || [ -n "$ndp_line" ]; do
    case $ndp_line in
      nerves:*) ndp_found=$ndp_line ;;
      *) ndp_others="$ndp_others$ndp_line"$'\n' ;;
    esac
  done <"$1"
}
ndp_found=
ndp_read /etc/passwd

# The package's directory can be on a file system that does not keep owners (the share of a virtual machine, as with
# Docker Desktop and Colima). Then the image's own user can already write there. The build must keep that user, because
# the stock runner could not use a build tree of another uid afterwards.
# The file systems in the first pattern do keep owners (statfs(2): ext, XFS, Btrfs, overlay, tmpfs, ZFS, F2FS,
# bcachefs). On any other file system, this script makes a file as the image's user. The helper looks at the file's
# owner on the host and answers with `image` or `caller`.
case $ndp_found:$(stat -f -c %t "$ndp_package") in
  :* | *:ef53 | *:58465342 | *:9123683e | *:794c7630 | *:1021994 | *:2fc12fc1 | *:f2f52010 | *:ca451a4e) ;;
  *)
    if setpriv --reuid=nerves --regid=nerves --init-groups touch "$ndp_package/.nerves-owner-$ndp_token" 2>/dev/null; then
      printf '\036%s 0 owner 0 0\036' "$ndp_token"
      until [ -s /nerves-docker-port/owner ]; do
        sleep 0.05
      done
      read -r ndp_answer </nerves-docker-port/owner
      if [ "$ndp_answer" = image ]; then
        IFS=: read -r _ _ ndp_uid ndp_gid _ <<<"$ndp_found"
      fi
    fi
    ;;
esac

case $ndp_found in
  nerves:*:"$ndp_uid":"$ndp_gid":*:*:*) ;;
  *)
    printf '%s\n%s' "nerves:x:$ndp_uid:$ndp_gid::$ndp_home:/bin/bash" "$ndp_others" >/etc/passwd
    ndp_read /etc/group
    printf '%s\n%s' "nerves:x:$ndp_gid:" "$ndp_others" >/etc/group
    ;;
esac
# The engine makes the parent directories of a mount as root, so they must also get the new owner. The mounts themselves
# keep their owners.
[ -d "$ndp_home" ] || mkdir -p "$ndp_home"
# The first line has the device of the home directory, and the last line has the owner of the build directory.
ndp_here=$(stat -c '%d %u' "$ndp_home" .)
ndp_owner=${ndp_here##* } ndp_here=${ndp_here%% *}
find "$ndp_home" -xdev -path "$PWD" -prune -o ! -uid "$ndp_uid" -printf '%D %p\0' 2>/dev/null |
  sed -zn "s/^$ndp_here //p" | xargs -0r chown -h "$ndp_uid:$ndp_gid" 2>/dev/null || :
ndp_give_ssh "$ndp_home" "$ndp_uid" "$ndp_gid"
# The owner of the build tree is changed only once. Its top directory comes last, so that the next container continues
# if this one is interrupted.
[ "$ndp_owner" = "$ndp_uid" ] || find . -xdev -depth ! -uid "$ndp_uid" -exec chown -h "$ndp_uid:$ndp_gid" {} +
# The pipe or terminal of the output still belongs to root, and a program that writes to `/dev/stderr` opens it again.
chown "$ndp_uid" "/proc/$$/fd/1" 2>/dev/null || :
printf 'HOME=%s\0' "$ndp_home" >>/nerves-docker-port/environment
# The configure scripts of GNU tar and coreutils refuse to run as root without this variable.
[ "$ndp_uid" != 0 ] || printf 'FORCE_UNSAFE_CONFIGURE=1\0' >>/nerves-docker-port/environment
ndp_with=()
if [ "$1 $2" = '/usr/bin/env -i' ]; then
  # A program of ours follows, and not the image's entrypoint. So this is the environment of the steps, too.
  while IFS= read -r -d '' ndp_variable; do
    printf '%s\0' "$ndp_variable"
  done </nerves-docker-port/environment >/nerves-docker-port/tmp/environment
else
  ndp_read_environment /nerves-docker-port/environment
fi
exec setpriv --reuid="$ndp_uid" --regid="$ndp_gid" --init-groups "${ndp_with[@]}" "$@"
