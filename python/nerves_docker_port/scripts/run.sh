# shellcheck shell=bash
# One command at a terminal: prepares the build directory, then runs the command. Arguments: the token of the marks,
# the path of create-build.sh, the defconfig, the build directory, then the words of the command.
#
# The marks of steps (scripts/steps.sh) say how create-build.sh failed, and how the command ended: what the programs
# around this one know of its exit status is not reliable when Ctrl-C reaches all of them at once. After Ctrl-C in
# create-build.sh there is nothing to explain.
ndp_token=$1
shift
# Engines before API version 1.42 tell the terminal its size once the program runs.
ndp_tries=0
while [ "$(stty size 2>/dev/null)" = "0 0" ] && [ "$((ndp_tries += 1))" -lt 50 ]; do sleep 0.05; done

trap : INT
ndp_output=$("${@:1:3}" 2>&1)
ndp_status=$?
trap - INT
if [ "$ndp_status" -ne 0 ]; then
  printf '%s\n' "$ndp_output"
  [ "$ndp_status" = 130 ] || printf '\036%s 1 create_build %d 0\036' "$ndp_token" "$ndp_status"
  exit "$ndp_status"
fi
# The command gets Ctrl-C as if this program were not there. What bash says about its end is not the command's.
trap : INT QUIT
exec 9>&2 2>/dev/null
"${@:4}" 2>&9 9>&-
ndp_status=$?
printf '\036%s 2 run %d 0\036' "$ndp_token" "$ndp_status"
exit "$ndp_status"
