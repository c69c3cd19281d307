# shellcheck shell=bash
# Runs a program, then offers the helper what was changed in the package. Arguments: the token of the marks, the
# package's directory, then the words of the program; without any, there is none to run. Stands behind say.sh and list.sh.
ndp_token=$1 ndp_package=$2
shift 2
# Keys at the terminal are for the program.
trap : INT QUIT
ndp_status=0
"$@" || ndp_status=$?
ndp_offer "$ndp_token" "$ndp_package"
exit "$ndp_status"
