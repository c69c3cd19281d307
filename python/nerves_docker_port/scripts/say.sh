# shellcheck shell=bash
# Defines functions with which a script sends messages to the helper. TOKEN is the token of the marks.
#
# ndp_say TOKEN NAME: send the message NAME, which is about the whole session.
#
# The message is a mark (scripts/steps.sh) with the number 0. It is also written to the file `ended`, for a helper that
# has no connection at that moment. The last number is the id of this process, by which the helper distinguishes two
# marks of the same name.
ndp_say() {
  printf '0 %s 0 %d\n' "$2" "$$" >>/nerves-docker-port/ended
  printf '\036%s 0 %s 0 %d\036' "$1" "$2" "$$"
}

# ndp_ask TOKEN NAME: send the question NAME, and wait until the helper has answered. The helper writes the answered
# question to the file `answered`. It sends no signal for that: bash can lose the exit status of a program that ends at
# the moment of a signal, and if the helper is far away, the signal comes late.
ndp_ask() {
  ndp_say "$1" "$2"
  while
    ndp_answered=
    { read -r ndp_answered </nerves-docker-port/answered; } 2>/dev/null
    [ "$ndp_answered" != "$2 $$" ]
  do
    sleep 0.05
  done
}
