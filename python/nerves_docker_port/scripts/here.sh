# shellcheck shell=bash
# Sends the message `here`, so that the session can begin, and then executes a program. It is for a session that only
# reads the build directory, which needs no preparation.
#
# Arguments: the token of the marks, then the words of the program. This text comes after say.sh in one program.
ndp_say "$1" here
shift
exec "$@"
