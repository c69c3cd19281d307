# shellcheck shell=bash
# A build shell: prepares the build directory, then gives the person a shell in it. Arguments: the path of
# create-build.sh, the defconfig, the build directory.
#
# The texts and prompts are the stock runner's. That one also cleared 25 lines of what Mix had said, threw away why
# create-build.sh had failed, and did not tell bash which parts of a prompt take no room, so that long lines overwrote
# themselves. The shell is not `exec`ed, so a container that ends with another status than 0 did not come to its end.
# Engines before API version 1.42 tell the terminal its size once the program runs.
ndp_tries=0
while [ "$(stty size 2>/dev/null)" = "0 0" ] && [ "$((ndp_tries += 1))" -lt 50 ]; do sleep 0.05; done

printf '\033]0;Nerves Shell\007\n\033[1;7m  Preparing Nerves Shell  \033[0m\n'
{
  printf '%s\n' "PS1='\[\e[1;7m\] Nerves \[\e[0;1m\] \W > \[\e[0m\]'"
  printf '%s\n' "PS2='\[\e[1;7m\] Nerves \[\e[0;1m\] \W ..\[\e[0m\]'"
} >>"$HOME/.bashrc"
echo 'Updating build directory.'
echo 'This will take a while if it is the first time...'
# Ctrl-C ends create-build.sh, not the shell that is to come.
trap : INT
ndp_output=$("$@")
ndp_status=$?
trap - INT
if [ "$ndp_status" -ne 0 ]; then
  printf '%s\n' "$ndp_output"
  printf '\n\033[1;31m%s ended with exit status %s\033[0m\n' "${1##*/}" "$ndp_status"
  echo 'The build directory may not be complete. What it said is above; the shell opens all the same.'
fi
printf '\nUse \033[33mctrl+d\033[0m or \033[33mexit\033[0m to leave the container shell\n\n'
/bin/bash
exit 0
