# shellcheck shell=bash
# Takes over what the helper sends into the copied workspace, as root. Stands behind say.sh and list.sh.
#
# Arguments: the token of the marks, the package's and the platform's directory, the directory of ccache or nothing,
# `image` or `caller`, then the arguments of the script that follows. With `image` the build works as the image's own
# user, and the uid and gid among those arguments (the second and third) become that user's; with `caller` they are the
# first and second and stay.
#
# A package in the volume that is not as it came has changes that no helper has fetched, because the connection broke;
# these are offered first. Then this says `wanted`, the helper puts everything into the directory `in`, and the volumes
# are made equal to it. A file that is the same already keeps its time, so that Buildroot does not take it for a new one.
# At the end, this says `here`.
ndp_token=$1 ndp_package=$2 ndp_platform=$3 ndp_ccache=$4 ndp_who=$5
shift 5
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
ndp_offer "$ndp_token" "$ndp_package"
# The build user makes these files the next time.
rm -f "$ndp_state"/out/*
ndp_ask "$ndp_token" wanted

# ndp_make_equal KIND FROM TO: remove what is not in FROM, and copy what is another.
ndp_make_equal() {
  ndp_find "$1" "$2" -printf '%y %p\0' | LC_ALL=C sort -z >"$ndp_state/types"
  ndp_find "$1" "$3" -printf '%y %p\0' | LC_ALL=C sort -z | LC_ALL=C comm -z -13 "$ndp_state/types" - |
    LC_ALL=C sed -z 's/^. //' | (cd "$3" && xargs -0r rm -rf --)
  {
    ndp_find "$1" "$2" -type d -print0
    LC_ALL=C comm -z -23 <(ndp_list "$1" "$2") <(ndp_list "$1" "$3") | ndp_paths
  } >"$ndp_state/copied"
  tar --create --directory="$2" --no-recursion --null --verbatim-files-from --files-from="$ndp_state/copied" |
    tar --extract --directory="$3" --preserve-permissions
}

mkdir -p "$ndp_package/.nerves/docker-port"
ndp_list package "$ndp_state/in/package" >"$ndp_package/.nerves/docker-port/coming"
ndp_make_equal package "$ndp_state/in/package" "$ndp_package"
mv "$ndp_package/.nerves/docker-port/coming" "$ndp_package/.nerves/docker-port/manifest"
ndp_make_equal platform "$ndp_state/in/platform" "$ndp_platform"
ndp_number=0
while IFS= read -r -d '' ndp_target; do
  mkdir -p "$(dirname "$ndp_target")"
  # A mount hides what the image has there.
  rm -rf "$ndp_target"
  mv "$ndp_state/in/mounts/$ndp_number" "$ndp_target"
  chown -hR "$ndp_uid:$ndp_gid" "$ndp_target"
  ndp_number=$((ndp_number + 1))
done <"$ndp_state/in/targets"
if [ -d "$ndp_state/in/ssh" ]; then
  rm -rf /nerves/ssh
  mv "$ndp_state/in/ssh" /nerves/ssh
fi
rm -rf "$ndp_state/in"

# The extracted Buildroot is large, and it is given over as a whole.
for ndp_dir in "$ndp_package" "$ndp_platform"; do
  (cd "$ndp_dir" && find . -xdev -path './buildroot*' -uid "$ndp_uid" -prune -o \
    '(' ! -uid "$ndp_uid" -o ! -gid "$ndp_gid" ')' -exec chown -h "$ndp_uid:$ndp_gid" {} +)
done
# These are shared with other packages, whose builds may work as another user.
for ndp_dir in /nerves/dl "$ndp_ccache"; do
  [ "$(stat -c %u "$ndp_dir" 2>/dev/null || echo "$ndp_uid")" != "$ndp_uid" ] || continue
  find "$ndp_dir" -xdev -depth '(' -type d -o -type f ')' -exec chmod a+rwX {} + -exec chown "$ndp_uid:$ndp_gid" {} +
done
ndp_say "$ndp_token" here
