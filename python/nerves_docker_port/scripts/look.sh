# shellcheck shell=bash
# Checks that the mounted directories are the host's directories, before any other program runs. An engine on another
# machine can have directories with the same names.
#
# Arguments: the token of the marks, a file in the container, the line that this file has on the host, another file that
# must exist, then the arguments of the script that follows. An empty file name means that there is nothing to check.
# This text comes after say.sh in one program.
#
# Sends the message `here`. If a directory is another one, sends `elsewhere` and ends with status 76.
ndp_token=$1 ndp_file=$2 ndp_wanted=$3 ndp_other=$4
shift 4
ndp_found=$ndp_wanted
[ -z "$ndp_file" ] || { ndp_found= && read -r ndp_found <"$ndp_file"; } 2>/dev/null || :
if [ "$ndp_found" != "$ndp_wanted" ] || { [ -n "$ndp_other" ] && [ ! -e "$ndp_other" ]; }; then
  ndp_say "$ndp_token" elsewhere
  exit 76
fi
ndp_say "$ndp_token" here
