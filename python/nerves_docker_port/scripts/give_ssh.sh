# shellcheck shell=bash
# Defines `ndp_give_ssh HOME UID GID`: it gives the build user of that home and these ids the ssh files of the caller.
#
# OpenSSH takes keys only from files that nobody but their owner may read, so a mount will not do for a user of another
# uid, and it would hide the image's known_hosts. The copies are in the container's own layer and go with it. Symbolic
# links to what is not in the container are left out. UseKeychain is an option of Apple's ssh and an error for any other
# (Apple Technical Note TN2449).
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
    # No other file of the person's is read unless this one names it.
    [ -f "$ndp_home/.ssh/config" ] || exit 0
    export LC_ALL=C
    grep -rliZE '^[[:space:]]*UseKeychain' "$ndp_home/.ssh" | xargs -0r sed -i -E '/^[[:space:]]*UseKeychain/Id' || :
  )
  chmod 700 "$ndp_home/.ssh"
  chown -R "$ndp_uid:$ndp_gid" "$ndp_home/.ssh"
}
