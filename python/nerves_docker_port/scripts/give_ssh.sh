# shellcheck shell=bash
# Defines `ndp_give_ssh HOME UID GID`, which copies the caller's ssh files for the build user with that home and ids.
#
# OpenSSH refuses a key file that a user other than its owner can read. So a mount would not work for a build user with
# another uid, and it would hide the image's known_hosts. The copies are in the container's own layer and are removed
# with the container. Symbolic links whose target is not in the container are left out. UseKeychain is an option of
# Apple's ssh, and an error for every other ssh (Apple Technical Note TN2449).
ndp_give_ssh() {
  [ -d /nerves/ssh ] || return 0
  ndp_home=$1 ndp_uid=$2 ndp_gid=$3
  [ -d "$ndp_home/.ssh" ] || mkdir -p "$ndp_home/.ssh"
  ndp_known=$(cat "$ndp_home/.ssh/known_hosts" /root/.ssh/known_hosts 2>/dev/null) || :
  (
    umask 077
    cd /nerves/ssh || exit 0
    # shellcheck disable=SC2016 # the inner shell expands these
    find . '(' -type d -o -type f -o -type l ')' -exec sh -c '
      for f; do
        if [ -f "$f" ]; then cat "$f" > "$0/$f"
        elif [ ! -L "$f" ] && [ ! -d "$0/$f" ]; then mkdir "$0/$f"
        fi
      done' "$ndp_home/.ssh" {} + || :
    ndp_known=$(
      {
        cat "$ndp_home/.ssh/known_hosts" || :
        printf '\n%s\n' "$ndp_known"
      } 2>/dev/null | awk 'NF && !seen[$0]++'
    )
    [ -z "$ndp_known" ] || printf '%s\n' "$ndp_known" >"$ndp_home/.ssh/known_hosts"
    # ssh reads other files of the user only if `config` names them. So without `config` nothing has to be changed.
    [ -f "$ndp_home/.ssh/config" ] || exit 0
    export LC_ALL=C
    grep -rliZE '^[[:space:]]*UseKeychain' "$ndp_home/.ssh" | xargs -0r sed -i -E '/^[[:space:]]*UseKeychain/Id' || :
  )
  chmod 700 "$ndp_home/.ssh"
  chown -R "$ndp_uid:$ndp_gid" "$ndp_home/.ssh"
}
