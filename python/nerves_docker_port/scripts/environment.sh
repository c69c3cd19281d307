# shellcheck shell=bash
# Defines a function with which a script runs the user's programs in the environment of the container.
#
# ndp_read_environment FILE: set the array ndp_with to the first words of a command that runs a program in the
# environment that keep_environment.sh has saved in FILE, and ndp_user_home to the value of HOME in it.
#
# env(1) sets exactly these variables. bash could not: it adds some, and cannot set a variable whose name it does not allow.
ndp_read_environment() {
  ndp_with=(/usr/bin/env -i --) ndp_user_home=
  while IFS= read -r -d '' ndp_variable; do
    ndp_with+=("$ndp_variable")
    # shellcheck disable=SC2034 # shell.sh uses it.
    case $ndp_variable in HOME=*) ndp_user_home=${ndp_variable#HOME=} ;; esac
  done <"$1"
}
