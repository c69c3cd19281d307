# shellcheck shell=bash
# Defines functions for lists of files and links. The copied workspace compares directories by these lists.
#
# A list is sorted and consists of records, each with a NUL at its end:
#   h SHA256  PATH    the content of a file (in the format of sha256sum)
#   m MODE PATH       the permissions of a file, octal
#   d MODE PATH       a directory and its permissions
#   l PATH//TARGET    a symbolic link
# A path begins with `./` and never has two slashes side by side. It can have any other bytes. The list leaves out the
# files that the helper never sends (workspace/packing.py).

# ndp_find KIND DIRECTORY EXPRESSION...: run find(1) in a directory. KIND is `package` or `platform`.
ndp_find() (
  cd "$2" || exit 1
  if [ "$1" = package ]; then
    ndp_names=(-path ./.nerves -o -path ./_build -o -path ./deps -o -path ./build.log -o -path ./archive.log -o -path ./run.log)
  else
    ndp_names=(-path './buildroot*' -o -path ./_build -o -path ./deps)
  fi
  shift 2
  exec find . -xdev '(' "${ndp_names[@]}" -o -name .git ')' -prune -o "$@"
)

# ndp_list KIND DIRECTORY: print the list of that directory. The status is not 0 if a part of it cannot be read.
ndp_list() (
  set -o pipefail
  {
    ndp_find "$1" "$2" '(' -type d ! -path . -printf 'd %m %p\0' -o -type f -printf 'm %m %p\0' -o -type l -printf 'l %p//%l\0' ')' || exit
    ndp_find "$1" "$2" -type f -print0 | (cd "$2" && xargs -0r sha256sum -z --) | sed -z 's/^/h /'
  } | LC_ALL=C sort -z
)

# ndp_paths: print the paths of the records on standard input, each path once.
ndp_paths() {
  LC_ALL=C sed -z -e 's/^h [0-9a-f]*  //' -e 's/^[dm] [0-7]* //' -e 's,^l \(\.\(/[^/][^/]*\)*\)//.*$,\1,' | LC_ALL=C sort -zu
}

# ndp_times KIND DIRECTORY: print a digest that changes with every change in that directory. It is much quicker than the
# list, because it contains the time of the last change of a file (ctime), which no program can set back, and not the content.
ndp_times() {
  ndp_find "$1" "$2" '(' -type d -printf '%p %m %U %G\0' ')' -o -printf '%p %y %m %U %G %s %C@ %l\0' | sha256sum
}

# ndp_is FILE TEXT: succeed if the first line of the file is that text.
ndp_is() {
  ndp_line=
  { read -r ndp_line <"$1"; } 2>/dev/null || :
  [ "$ndp_line" = "$2" ]
}

# ndp_keep FILE TEXT: make the file anew, because root and the build user both do this.
ndp_keep() {
  rm -f "$1"
  printf '%s\n' "$2" >"$1"
}

# ndp_offer TOKEN DIRECTORY: offer the helper the changes in the package since the helper sent it, if there are any.
#
# The helper fetches the tar file `out/changes.tar` and applies it on the host. Only after that, the new list is saved. The
# tar file is split into pieces of 4 MiB, `out/changes.tar.000000` and so on, because Docker holds the heartbeats back while
# it sends a file. It has `base`, the list of the files that the helper sent; `deleted`, the paths that no longer exist; and the
# files that are changed or new. This function needs say.sh. It works as root and as the build user. If a program in it
# fails, for example because the disk is full, it offers nothing and returns that program's exit status.
ndp_offer() {
  ndp_out=/nerves-docker-port/out ndp_kept=$2/.nerves/docker-port
  # No package has come yet.
  [ -e "$ndp_kept/manifest" ] || return 0
  # The file `coming` exists if a session ended while it copied the files that the helper had sent. Some of them may
  # have come only in part. Nothing is offered, because before that copy, all changes had been offered.
  [ ! -e "$ndp_kept/coming" ] || return 0
  # The digest is made before the list, so a file that changes while the list is made is found the next time.
  ndp_now=$(ndp_times package "$2") || return
  ! ndp_is "$ndp_kept/package" "$ndp_now" || return 0
  ndp_list package "$2" >"$ndp_out/now" || return
  cp "$ndp_kept/manifest" "$ndp_out/base" || return
  LC_ALL=C comm -z -23 "$ndp_out/now" "$ndp_out/base" | ndp_paths >"$ndp_out/changed" || return
  LC_ALL=C comm -z -13 <(ndp_paths <"$ndp_out/now") <(ndp_paths <"$ndp_out/base") >"$ndp_out/deleted" || return
  if [ ! -s "$ndp_out/changed" ] && [ ! -s "$ndp_out/deleted" ]; then
    ndp_keep "$ndp_kept/package" "$ndp_now"
    return
  fi
  rm -f "$ndp_out"/changes.tar.*
  (
    set -o pipefail
    tar --create --format=gnu --hard-dereference --no-recursion --directory="$ndp_out" base deleted \
      --directory="$2" --null --verbatim-files-from --files-from="$ndp_out/changed" |
      split --bytes=4M --numeric-suffixes --suffix-length=6 - "$ndp_out/changes.tar."
  ) || return
  # shellcheck disable=SC2034 # receive.sh uses it.
  ndp_offered=1
  ndp_ask "$1" changed
  mv "$ndp_out/now" "$ndp_kept/manifest" || return
  rm -f "$ndp_out"/changes.tar.*
  # The host can have other files now than the volume, so the next session asks for the package.
  rm -f "$ndp_kept/known"
  ndp_keep "$ndp_kept/package" "$ndp_now"
}
