# shellcheck shell=bash
# Runs a program, then offers the changes in the package to the helper. If they cannot be offered, it sends `unoffered`,
# and the next session offers them.
#
# Arguments: the token of the marks, the package's directory, then the words of the program. Without these words, no
# program runs. This text comes after say.sh and list.sh in one program.
ndp_token=$1 ndp_package=$2
shift 2
# Ctrl-C and Ctrl-\ at the terminal are for the program. This script must not end because of them.
trap : INT QUIT
ndp_status=0
"$@" || ndp_status=$?
ndp_offer "$ndp_token" "$ndp_package" || ndp_say "$ndp_token" unoffered
exit "$ndp_status"
