# shellcheck shell=bash
# Defines how a script talks with the helper.
#
# ndp_say TOKEN NAME: it tells the helper something about the session as a whole. TOKEN is that of the marks.
#
# What is said is a mark (scripts/steps.sh) with the number 0, and is also noted in the file `ended`, for a helper whose
# connection breaks meanwhile. The last number is the process: it tells two marks of the same name apart.
ndp_say() {
  printf '0 %s 0 %d\n' "$2" "$$" >>/nerves-docker-port/ended
  printf '\036%s 0 %s 0 %d\036' "$1" "$2" "$$"
}

# ndp_ask TOKEN NAME: say it, and wait until the helper has answered. The line that it sends then may be an older one, so
# a file holds what it has answered.
ndp_ask() {
  ndp_say "$1" "$2"
  until [ "$(cat /nerves-docker-port/answered 2>/dev/null)" = "$2 $$" ]; do
    read -r _ </nerves-docker-port/next
  done
}
