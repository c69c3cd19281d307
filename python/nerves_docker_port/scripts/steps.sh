# shellcheck shell=bash
# Runs the steps of a session one after the other, as the user that builds.
#
# Arguments: the token of the marks, how many of the following words are the final step (0: there is none), the final
# step, then the first steps. A step is its name, the number of its words, and the words.
# Descriptor 7 has an empty line whenever further steps lie in the file `steps` of the state directory, in the same form,
# each word followed by a NUL. Before them stands the number of the first one: the line may come twice where the helper
# does not know whether its signal has arrived, and a step must not run twice.
# A line `final` asks for the final step, which also runs only once. If it ends well, this program ends.
#
# At the end of each step a mark goes into the output: the byte 036 (octal), the token, the number of the step, its name,
# its exit status, how many processes were killed because memory ran out while it ran, and the byte 036. The same goes
# into the file `ended`, for a helper whose connection was lost when the mark came. After a step that fails, the steps
# that came with it and stand behind it are left out.
#
# bash, which every builder image has (`create-build.sh` is written for it): a POSIX shell has no arrays.
ndp_token=$1
ndp_final=("${@:3:$2}")
shift "$((2 + $2))"
ndp_state=/nerves-docker-port
# What bash says about its jobs is not the build's.
exec 8>&1 2>/dev/null
# TERM is sent to everything in the container. This program stays to say how the step ended, if one runs.
ndp_stopped='' ndp_busy=1
trap '[ -n "$ndp_busy" ] || exit 143; ndp_stopped=1 ndp_signalled=1' TERM
ndp_number=0

# Sets ndp_kills to the number of processes in this container that were killed because memory ran out so far. Where the
# kernel counts them: cgroup v2, "memory.events"; cgroup v1, "memory.oom_control"
# (https://docs.kernel.org/admin-guide/cgroup-v2.html#memory-interface-files).
ndp_count_kills() {
  ndp_kills=0
  for ndp_file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
    [ -r "$ndp_file" ] || continue
    while read -r ndp_key ndp_value; do
      [ "$ndp_key" != oom_kill ] || ndp_kills=$ndp_value
    done <"$ndp_file"
    return
  done
}

ndp_run() {
  while [ $# -gt 0 ] && [ -z "$ndp_stopped" ]; do
    ndp_name=$1 ndp_count=$2
    ndp_words=("${@:3:ndp_count}")
    shift $((ndp_count + 2))
    ndp_count_kills
    ndp_before=$ndp_kills
    # With job control a step has a process group of its own and does not inherit that SIGINT and SIGQUIT are ignored.
    # Not for longer, because with it `wait` also returns when the step is only stopped.
    #
    # Both outputs of a step go through one pipe. Through two, what went to standard error could arrive before or after
    # what was written next to it, and after the end of the step.
    set -m
    "${ndp_words[@]}" </dev/null >&8 2>&8 7<&- 8>&- &
    ndp_step=$!
    set +m
    # What `wait` gives when a signal has come is not the status of the step, so bash is asked again. Where step and signal
    # came at once, bash 5.2 has lost the status and says -1. `wait` may also return for a step that is only stopped.
    while
      ndp_signalled=''
      wait "$ndp_step"
      ndp_status=$?
      [ -n "$ndp_signalled" ] || kill -0 "$ndp_step"
    do
      [ -n "$ndp_signalled" ] || sleep 0.5
    done
    [ "$ndp_status" -ge 0 ] || ndp_status=143
    ndp_count_kills
    ndp_number=$((ndp_number + 1)) ndp_before=$((ndp_kills - ndp_before))
    printf '%d %s %d %d\n' "$ndp_number" "$ndp_name" "$ndp_status" "$ndp_before" >>"$ndp_state/ended"
    printf '\036%s %d %s %d %d\036' "$ndp_token" "$ndp_number" "$ndp_name" "$ndp_status" "$ndp_before" >&8
    [ "$ndp_status" = 0 ] || return
  done
}

ndp_run "$@"
# bash goes on with `read` after a trap, so it is the trap that ends this program here.
while
  ndp_busy=
  [ -z "$ndp_stopped" ]
do
  read -r ndp_line <&7 || continue
  ndp_busy=1
  if [ "$ndp_line" = final ]; then
    [ "${#ndp_final[@]}" -gt 0 ] || continue
    ndp_run "${ndp_final[@]}"
    [ "$ndp_status" != 0 ] || exit 0
    ndp_final=()
    continue
  fi
  ndp_words=()
  while IFS= read -r -d '' ndp_word; do
    ndp_words+=("$ndp_word")
  done <"$ndp_state/steps"
  [ "${ndp_words[0]}" -le "$ndp_number" ] || ndp_run "${ndp_words[@]:1}"
done
