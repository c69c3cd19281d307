# shellcheck shell=bash
# Prepares the build directory, then runs a build shell in it for the user.
#
# Arguments: the path of create-build.sh, the defconfig, the build directory. This text comes after environment.sh in one
# program.
#
# The texts and prompts are those of the stock runner, with three differences. The stock runner also cleared 25 lines of
# Mix's output. It did not show why create-build.sh failed. It did not tell bash which parts of a prompt take no
# columns, so that long lines overwrote themselves. The shell runs without `exec`, so that the container ends with
# status 0 after the shell. With another status, the container was ended before.
#
# An engine before API version 1.42 sets the size of the terminal only after the start of the program.
ndp_with=() ndp_user_home=
ndp_read_environment /nerves-docker-port/tmp/environment
ndp_tries=0
while [ "$(stty size 2>/dev/null)" = "0 0" ] && [ "$((ndp_tries += 1))" -lt 50 ]; do sleep 0.05; done

printf '\033]0;Nerves Shell\007\n\033[1;7m  Preparing Nerves Shell  \033[0m\n'
{
  printf '%s\n' "PS1='\[\e[1;7m\] Nerves \[\e[0;1m\] \W > \[\e[0m\]'"
  printf '%s\n' "PS2='\[\e[1;7m\] Nerves \[\e[0;1m\] \W ..\[\e[0m\]'"
} >>"$ndp_user_home/.bashrc"
echo 'Updating build directory.'
echo 'This will take a while if it is the first time...'
# Ctrl-C must end create-build.sh, but not this program, which starts the shell afterwards.
trap : INT
ndp_output=$("${ndp_with[@]}" "$@")
ndp_status=$?
trap - INT
if [ "$ndp_status" -ne 0 ]; then
  printf '%s\n' "$ndp_output"
  printf '\n\033[1;31m%s ended with exit status %s\033[0m\n' "${1##*/}" "$ndp_status"
  echo 'The build directory may not be complete. What it said is above; the shell opens all the same.'
fi
printf '\nUse \033[33mctrl+d\033[0m or \033[33mexit\033[0m to leave the container shell\n\n'
"${ndp_with[@]}" /bin/bash
exit 0
