# shellcheck shell=bash
# Saves the environment that the container gives to its programs, and then runs a program of ours without it.
#
# Arguments: the file for the environment, then the words of the program to execute. The file gets each variable as
# `NAME=VALUE` and a NUL. environment.sh reads it.
#
# The variables of the image and of the setting `env` are for the build. They must not reach our scripts: many of them
# change what bash and other programs do, for example BASH_ENV, FUNCNEST, TMOUT, POSIXLY_CORRECT, PATH and exported
# functions (bash(1), "Shell Variables"). `bash -p` ignores those that run code, and this program uses as little of bash
# as possible. The kernel's copy is the exact environment. The variables of bash are not, because bash sets some itself.

# The programs below can run as another user, and the second directory is for their files. It is not /tmp, because that
# can be a directory of the host.
# shellcheck disable=SC2174 # the first directory is root's
[ -d /nerves-docker-port ] || (umask 022 && /bin/mkdir -p -m 1777 /nerves-docker-port/tmp)
while IFS= read -r -d '' ndp_variable; do
  printf '%s\0' "$ndp_variable"
done <"/proc/$$/environ" >"$1"
shift
exec "$@"
