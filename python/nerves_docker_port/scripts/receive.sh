# shellcheck shell=bash
# Copies the files that the helper sends into the copied workspace, as root. This text comes after say.sh and list.sh in
# one program.
#
# Arguments: the token of the marks, the package's directory, the platform's directory, the directory of ccache or an
# empty word, the fingerprint of the package and the platform on the host, `more` if the helper also has files that are
# not kept in a volume or an empty word, `image` or `caller`, then the arguments of the script that follows. With `image`
# the build works as the image's own user: the uid and gid are the second and third of those arguments, and are replaced
# by that user's ids. With `caller` the uid and gid are the first and second of those arguments, and are not changed.
#
# If a connection broke, the package in the volume can have changes that no helper has fetched. These are offered first.
# Then this script asks `wanted`, the helper puts all files into the directory `in`, and the volumes are made equal to
# it. A file that has not changed keeps its time, so that Buildroot does not take it for a new one, and a changed file
# gets the present as its time. If the host has the same files as the last time, and nothing has changed in the volumes,
# it asks `wanted_more` for the other files, or nothing. At the end, this script sends `here`.
ndp_token=$1 ndp_package=$2 ndp_platform=$3 ndp_ccache=$4 ndp_fingerprint=$5 ndp_more=$6 ndp_who=$7
shift 7
set -e
ndp_state=/nerves-docker-port
if [ "$ndp_who" = image ]; then
  ndp_uid=$2 ndp_gid=$3
  if id nerves >/dev/null 2>&1; then ndp_uid=$(id -u nerves) ndp_gid=$(id -g nerves); fi
  set -- "$1" "$ndp_uid" "$ndp_gid" "${@:4}"
else
  ndp_uid=$1 ndp_gid=$2
fi
mkdir -p "$ndp_state/out"
chmod 1777 "$ndp_state/out"
ndp_kept=$ndp_package/.nerves/docker-port ndp_offered=
ndp_offer "$ndp_token" "$ndp_package"
# The files are removed because the build user, and not root, makes them the next time.
rm -f "$ndp_state"/out/*

# ndp_make_equal KIND FROM TO: remove from TO the files that are not in FROM, and copy the files that differ to TO.
ndp_make_equal() (
  set -o pipefail
  : >"$ndp_state/types"
  if [ -z "$(ndp_find "$1" "$3" ! -path . -print -quit)" ]; then
    cp -a "$2/." "$3"
    # The host's clock can be ahead of the engine's. make(1) takes a file of the future for a new one again and again.
    find "$3" -xdev -newer "$ndp_state/types" -exec touch -h {} +
    exit
  fi
  ndp_find "$1" "$2" -printf '%y %p\0' | LC_ALL=C sort -z >"$ndp_state/types"
  ndp_find "$1" "$3" -printf '%y %p\0' | LC_ALL=C sort -z | LC_ALL=C comm -z -13 "$ndp_state/types" - |
    LC_ALL=C sed -z 's/^. //' | (cd "$3" && xargs -0r rm -rf --)
  ndp_list "$1" "$2" >"$ndp_state/from"
  ndp_list "$1" "$3" >"$ndp_state/to"
  {
    ndp_find "$1" "$2" -type d -print0
    LC_ALL=C comm -z -23 "$ndp_state/from" "$ndp_state/to" | ndp_paths
  } >"$ndp_state/copied"
  # These files get the present as their time. On the host, a file can have changed before the last build ended, or its
  # clock can be behind the engine's. make(1) would then take the file for older than what was built without the change.
  tar --create --directory="$2" --no-recursion --null --verbatim-files-from --files-from="$ndp_state/copied" |
    tar --extract --directory="$3" --preserve-permissions --touch
)

# The owner is compared, too, because another image can have another build user.
ndp_known="$ndp_fingerprint $ndp_uid $ndp_gid"
if [ -z "$ndp_offered" ] && [ ! -e "$ndp_kept/coming" ] && ndp_is "$ndp_kept/known" "$ndp_known" &&
  ndp_is "$ndp_kept/platform" "$(ndp_times platform "$ndp_platform")"; then
  [ -z "$ndp_more" ] || ndp_ask "$ndp_token" wanted_more
else
  ndp_ask "$ndp_token" wanted
  mkdir -p "$ndp_kept"
  ndp_list package "$ndp_state/in/package" >"$ndp_kept/coming"
  ndp_make_equal package "$ndp_state/in/package" "$ndp_package"
  mv "$ndp_kept/coming" "$ndp_kept/manifest"
  ndp_make_equal platform "$ndp_state/in/platform" "$ndp_platform"
  # The extracted Buildroot is large. If its top directory already has the owner, its content is not checked.
  for ndp_dir in "$ndp_package" "$ndp_platform"; do
    (cd "$ndp_dir" && find . -xdev -path './buildroot*' -uid "$ndp_uid" -prune -o \
      '(' ! -uid "$ndp_uid" -o ! -gid "$ndp_gid" ')' -exec chown -h "$ndp_uid:$ndp_gid" {} +)
  done
  ndp_keep "$ndp_kept/package" "$(ndp_times package "$ndp_package")"
  ndp_keep "$ndp_kept/platform" "$(ndp_times platform "$ndp_platform")"
  ndp_keep "$ndp_kept/known" "$ndp_known"
fi
ndp_number=0
while IFS= read -r -d '' ndp_target; do
  mkdir -p "$(dirname "$ndp_target")"
  # The target replaces a file or directory of the image, as a mount would hide it.
  rm -rf "$ndp_target"
  mv "$ndp_state/in/mounts/$ndp_number" "$ndp_target"
  chown -hR "$ndp_uid:$ndp_gid" "$ndp_target"
  ndp_number=$((ndp_number + 1))
done < <([ ! -e "$ndp_state/in/targets" ] || cat "$ndp_state/in/targets")
if [ -d "$ndp_state/in/ssh" ]; then
  rm -rf /nerves/ssh
  mv "$ndp_state/in/ssh" /nerves/ssh
fi
rm -rf "$ndp_state/in"
# Other packages share these directories, and their builds may work as another user.
for ndp_dir in /nerves/dl "$ndp_ccache"; do
  [ "$(stat -c %u "$ndp_dir" 2>/dev/null || echo "$ndp_uid")" != "$ndp_uid" ] || continue
  find "$ndp_dir" -xdev -depth '(' -type d -o -type f ')' -exec chmod a+rwX {} + -exec chown "$ndp_uid:$ndp_gid" {} +
done
ndp_say "$ndp_token" here
