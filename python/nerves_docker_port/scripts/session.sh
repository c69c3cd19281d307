# shellcheck shell=bash
# The first program of a session's container. It starts the program that runs the steps, which is called the program
# below, and decides how long the container lives.
#
# Arguments: the token of the marks, the patience in seconds, then the words of the program below. This text comes after
# kills.sh in one program.
#
# This program is process 1 of the container, so the engine sends the signals of the helper only to it:
#   USR1  A heartbeat: the helper is alive.
#   USR2  The helper has put a file into the state directory. This program passes that on to the program below.
#   URG   The helper wants the final step (scripts/steps.sh). This program passes that on to the program below.
#   TERM  The container must end.
# If no heartbeat arrives for `patience` seconds, the container ends by itself. This program counts the seconds one by
# one, so that the time for which a laptop sleeps, or by which somebody sets the clock, does not count. While the helper
# sends files into the directory `in` (receive.sh), Docker 20.10 holds its signals back. So if the size of that directory
# has changed in the second half of this time, the count begins again.
#
# If the program below ends by itself, this program writes the mark `below` (scripts/steps.sh says what a mark is). It
# writes no mark if the program below succeeded after the final step, because that step has written its own mark.
ndp_token=$1 ndp_patience=$2
shift 2
ndp_state=/nerves-docker-port
# The programs below, which can run as another user, must be able to append to this file.
(umask 0 && : >"$ndp_state/ended")
mkfifo "$ndp_state/next"
# The pipe is opened for reading and writing, so that neither side waits until the other side opens it.
exec 7<>"$ndp_state/next"

# ndp_say NAME STATUS KILLED: write a mark about the session. If nobody reads the output, a write can block for ever. So
# it is done in the background, and this program waits for it for one second at most.
ndp_say() {
  printf '\036%s 0 %s %d %d\036' "$ndp_token" "$1" "$2" "$3" &
  ndp_left=100
  while [ "$ndp_left" -gt 0 ] && kill -0 "$!" 2>/dev/null; do
    ndp_left=$((ndp_left - 1))
    sleep 0.01
  done
}

ndp_missed=0 ndp_ending='' ndp_arrived='' ndp_killed=
ndp_count_kills
trap 'ndp_missed=0' USR1
trap 'echo >&7' USR2
trap 'echo final >&7' URG
trap 'ndp_ending=stopped' TERM
# bash starts a background program so that it and its child processes ignore SIGINT and SIGQUIT. The user's shell and
# the steps must not ignore them, so `trap -` sets both back.
if [ -t 0 ]; then
  # With a terminal, keys such as Ctrl-C are for the program below, and this program must not react to them.
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
    # If Ctrl-C arrives at the moment when the program ends, bash 5.2 loses its status and gives -1.
    [ "$ndp_status" -ge 0 ] || ndp_status=130
    if [ "$ndp_status" != 0 ] || [ -t 0 ]; then
      ndp_count_new_kills
      ndp_say below "$ndp_status" "$ndp_killed"
    fi
    exit "$ndp_status"
  fi
  ndp_missed=$((ndp_missed + 1))
  if [ "$ndp_missed" -eq $((ndp_patience / 2)) ]; then
    ndp_arrived=$(du -sb "$ndp_state/in" 2>/dev/null)
  elif [ "$ndp_missed" -gt "$ndp_patience" ]; then
    if [ "$(du -sb "$ndp_state/in" 2>/dev/null)" = "$ndp_arrived" ]; then ndp_ending=expired; else ndp_missed=0; fi
  fi
done

# The helper may still read the output although its heartbeats do not arrive. So this mark must come before the mark of
# the step that ends now.
[ "$ndp_ending" != expired ] || ndp_say expired 0 0

# All other processes in the container get TERM, so that make can remove unfinished files. An interactive shell ignores
# TERM but ends on HUP. If a process still runs after five seconds, the kernel kills it when process 1 ends.
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
