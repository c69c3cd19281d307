# shellcheck shell=bash
# The first program of a session's container: it decides how long the container lives.
#
# Arguments: the token of the marks, the patience in seconds, then the words of the program that runs the steps.
#
# The engine sends signals to this program only, because it is process 1 of the container:
#   USR1  a heartbeat: the helper is still there.
#   USR2  the helper has put something into the state directory; the program below is told.
#   URG   the helper wants the final step (scripts/steps.sh); the program below is told.
#   TERM  the container is to end.
# Without a heartbeat for `patience` seconds the container ends by itself. The seconds are counted one by one: when a
# laptop sleeps, or when somebody sets the clock, no second of this count passes.
#
# A program below that ends by itself is told of with the mark `below` (scripts/steps.sh says what a mark is), unless it
# ended well after the final step, whose own mark has told that.
#
# Names of variables here begin with ndp_, because the steps inherit the environment and must see every other name as
# it was given to the container.
ndp_token=$1 ndp_patience=$2
shift 2
ndp_state=/nerves-docker-port
mkdir -p "$ndp_state"
# The program below may work as another user, and appends to this file.
(umask 0 && : >"$ndp_state/ended")
mkfifo "$ndp_state/next"
# Opened for reading and for writing, so that neither side ever waits for the other one to open it.
exec 7<>"$ndp_state/next"

# Writes a mark about the session. Where nobody takes the output, a program that writes waits for ever: this one must not.
ndp_say() {
  printf '\036%s 0 %s %d 0\036' "$ndp_token" "$1" "$2" &
  ndp_left=100
  while [ "$ndp_left" -gt 0 ] && kill -0 "$!" 2>/dev/null; do
    ndp_left=$((ndp_left - 1))
    sleep 0.01
  done
}

ndp_missed=0 ndp_ending=
trap 'ndp_missed=0' USR1
trap 'echo >&7' USR2
trap 'echo final >&7' URG
trap 'ndp_ending=stopped' TERM
# A program that is started in the background ignores SIGINT and SIGQUIT, and so would all that it starts. The person's
# shell and the steps must not.
if [ -t 0 ]; then
  # The shell of a person at the terminal: keys such as Ctrl-C are for the programs in the foreground, not for this one.
  trap : INT QUIT TSTP HUP
  (
    trap - INT QUIT TSTP HUP USR1 USR2 URG TERM
    exec "$@"
  ) <&0 &
else
  (
    trap - INT QUIT
    exec "$@"
  ) </dev/null &
fi
ndp_below=$!

while [ -z "$ndp_ending" ]; do
  sleep 1 &
  ndp_tick=$!
  # `wait -n` also returns when a signal has arrived.
  while [ -z "$ndp_ending" ] && kill -0 "$ndp_tick" 2>/dev/null && kill -0 "$ndp_below" 2>/dev/null; do
    wait -n 2>/dev/null
  done
  if ! kill -0 "$ndp_below" 2>/dev/null; then
    wait "$ndp_below"
    ndp_status=$?
    # Where Ctrl-C came at once with its end, bash 5.2 has lost the status and says -1.
    [ "$ndp_status" -ge 0 ] || ndp_status=130
    if [ "$ndp_status" != 0 ] || [ -t 0 ]; then
      ndp_say below "$ndp_status"
    fi
    exit "$ndp_status"
  fi
  ndp_missed=$((ndp_missed + 1))
  [ "$ndp_missed" -le "$ndp_patience" ] || ndp_ending=expired
done

# The helper may still read the output although its heartbeats do not arrive. It must learn this before it learns that a
# step has ended.
[ "$ndp_ending" != expired ] || ndp_say expired 0

# Everything else in the container gets TERM, so that make can remove what is half written. A shell at a terminal ignores
# TERM and listens to HUP. What is still there after five seconds is killed by the kernel when process 1 has ended.
[ ! -t 0 ] || kill -HUP -1
kill -TERM -1
kill -CONT -1
ndp_left=50
while [ "$ndp_left" -gt 0 ] && kill -0 -1 2>/dev/null; do
  ndp_left=$((ndp_left - 1))
  sleep 0.1
done
[ "$ndp_ending" != expired ] || exit 75
exit 143
