# shellcheck shell=bash
# Prepares the build directory, then runs one command at a terminal.
#
# Arguments: the token of the marks, the path of create-build.sh, the defconfig, the build directory, then the words of
# the command. This text comes after environment.sh and kills.sh in one program.
#
# This program writes the marks of steps (scripts/steps.sh) for a create-build.sh that fails and for the command. The
# exit status that the programs around this one see is not reliable if Ctrl-C reaches all of them together. If Ctrl-C
# ended create-build.sh, there is no mark, because the failure needs no explanation.
ndp_token=$1
shift
ndp_with=()
ndp_read_environment /nerves-docker-port/tmp/environment
# An engine before API version 1.42 sets the size of the terminal only after the start of the program.
ndp_tries=0
while [ "$(stty size 2>/dev/null)" = "0 0" ] && [ "$((ndp_tries += 1))" -lt 50 ]; do sleep 0.05; done

ndp_killed=
ndp_count_kills
trap : INT
ndp_output=$("${ndp_with[@]}" "${@:1:3}" 2>&1)
ndp_status=$?
trap - INT
if [ "$ndp_status" -ne 0 ]; then
  printf '%s\n' "$ndp_output"
  ndp_count_new_kills
  [ "$ndp_status" = 130 ] || printf '\036%s 1 create_build %d %d\036' "$ndp_token" "$ndp_status" "$ndp_killed"
  exit "$ndp_status"
fi
# The command gets Ctrl-C as if this program were not there. The messages of bash about its end are not a part of its
# output, so they go to /dev/null.
trap : INT QUIT
exec 9>&2 2>/dev/null
"${ndp_with[@]}" "${@:4}" 2>&9 9>&-
ndp_status=$?
ndp_count_new_kills
printf '\036%s 2 run %d %d\036' "$ndp_token" "$ndp_status" "$ndp_killed"
exit "$ndp_status"
