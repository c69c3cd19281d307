# shellcheck shell=bash
# Says that the session can begin, and becomes the program in its arguments: a session that only reads the build
# directory has nothing else to prepare. The first argument is the token of the marks. Stands behind say.sh.
ndp_say "$1" here
shift
exec "$@"
