# shellcheck shell=bash
# Sees that the mounted directories are those of the person, before anything else runs. An engine elsewhere may have
# directories of the same names. Arguments: the token of the marks, a file in the container, what the person has in it
# (one line), another file that must be there, then the arguments of the script that follows. Stands behind say.sh.
# A file without a name is not looked at.
#
# Says `here` or, where it is another directory, `elsewhere`, and ends with a status of its own.
ndp_token=$1 ndp_file=$2 ndp_wanted=$3 ndp_other=$4
shift 4
ndp_found=$ndp_wanted
[ -z "$ndp_file" ] || { ndp_found= && read -r ndp_found <"$ndp_file"; } 2>/dev/null || :
if [ "$ndp_found" != "$ndp_wanted" ] || { [ -n "$ndp_other" ] && [ ! -e "$ndp_other" ]; }; then
  ndp_say "$ndp_token" elsewhere
  exit 76
fi
ndp_say "$ndp_token" here
