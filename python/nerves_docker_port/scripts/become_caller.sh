# shellcheck shell=bash
# Runs as root and becomes the person who ran Mix. Arguments: the token of the marks, uid, gid, the package's directory,
# then the words of the program to run. Stands behind give_ssh.sh in one program.
#
# The image's user `nerves` has a uid of its own (1005 from nerves_system_br 1.28.1 on), and that user may not write
# anybody else's package directory (nerves #402). It keeps its name, home and sudo rule, but gets the uid and gid of the
# caller. Its entries go first: an image may already have a user with that uid (Ubuntu's have `ubuntu`, 1000), and a
# look-up by uid takes the first. Not `usermod`: it walks the whole home, the build tree included.
#
# Names of variables begin with ndp_, because the steps must see every other name as it was given to the container.
#
# Every session begins with this, and each program in it costs a millisecond or two: the shell does what it can by itself.
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

# Where the package's directory lies on a file system that does not keep owners (a virtual machine's share: Docker
# Desktop, Colima), the image's own user can write there already. It must stay that user, or the build tree would belong
# to a uid that the stock runner cannot use afterwards. The file systems named here are the kernel's own, which keep
# owners (statfs(2): ext, XFS, Btrfs, overlay, tmpfs, ZFS, F2FS, bcachefs). For any other one, a file is made as the
# image's user, and the helper looks whom it belongs to on the host and answers with `image` or `caller`.
case $ndp_found:$(stat -f -c %t "$ndp_package") in
  :* | *:ef53 | *:58465342 | *:9123683e | *:794c7630 | *:1021994 | *:2fc12fc1 | *:f2f52010 | *:ca451a4e) ;;
  *)
    if setpriv --reuid=nerves --regid=nerves --init-groups touch "$ndp_package/.nerves-owner-$ndp_token" 2>/dev/null; then
      printf '\036%s 0 owner 0 0\036' "$ndp_token"
      read -r _ <&7
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
# What the engine made on the way to a mount is root's, too. What is mounted there is not ours to give.
[ -d "$ndp_home" ] || mkdir -p "$ndp_home"
# Device and owner of the build directory, and the device of the home.
ndp_here=$(stat -c '%d %u' "$ndp_home" .)
ndp_owner=${ndp_here##* } ndp_here=${ndp_here%% *}
find "$ndp_home" -xdev -path "$PWD" -prune -o ! -uid "$ndp_uid" -printf '%D %p\0' 2>/dev/null |
  sed -zn "s/^$ndp_here //p" | xargs -0r chown -h "$ndp_uid:$ndp_gid" 2>/dev/null || :
ndp_give_ssh "$ndp_home" "$ndp_uid" "$ndp_gid"
# The build tree is given over once, the top last: the next container goes on where this one was interrupted.
[ "$ndp_owner" = "$ndp_uid" ] || find . -xdev -depth ! -uid "$ndp_uid" -exec chown -h "$ndp_uid:$ndp_gid" {} +
# The pipe or terminal of the output belongs to root by now, and `> /dev/stderr` opens it anew.
chown "$ndp_uid" "/proc/$$/fd/1" 2>/dev/null || :
export HOME="$ndp_home"
# GNU tar's and coreutils' configure refuse to run as root without this.
[ "$ndp_uid" != 0 ] || export FORCE_UNSAFE_CONFIGURE=1
exec setpriv --reuid="$ndp_uid" --regid="$ndp_gid" --init-groups "$@"
