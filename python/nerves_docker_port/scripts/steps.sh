# shellcheck shell=bash
# Runs the steps of a session one after the other, as the build user.
#
# Arguments: the token of the marks, the number of words that describe the final step (0 if there is none), these words,
# then the first steps. A step is described by its name, the number of the words of its command, and these words.
#
# Descriptor 7 gives an empty line when the helper has put further steps into the file `steps` of the state directory.
# The file has the number of its first step, and then the steps in the same form, with a NUL after each word. The helper
# may send the same steps twice if it does not know whether its signal has arrived. The number tells this program which
# steps it has already run, so that no step runs twice.
# A line `final` asks for the final step, which also runs only once. If it succeeds, this program ends.
#
# At the end of each step this program writes a mark to the output: the byte 036 (octal), the token, the number of the
# step, its name, its exit status, the number of processes that were killed because memory ran out while it ran (kills.sh),
# and the byte 036. It also writes these values to the file `ended`, for a helper that had no connection when the mark was
# written. After a step that fails, the later steps that came together with it do not run.
#
# The steps run in the environment of the container, and this program does not (keep_environment.sh). This text comes
# after environment.sh and kills.sh in one program.
#
# This is a program for bash, because a POSIX shell has no arrays. Every builder image has bash, for `create-build.sh`.
ndp_token=$1
ndp_final=("${@:3:$2}")
shift "$((2 + $2))"
ndp_state=/nerves-docker-port
ndp_with=()
ndp_read_environment "$ndp_state/tmp/environment"
# The messages of bash about its jobs must not be in the output of the build.
exec 8>&1 9>&2 2>/dev/null
# All processes in the container get TERM. If a step runs, this program goes on until it has written the mark of the
# step.
ndp_stopped='' ndp_busy=1
trap '[ -n "$ndp_busy" ] || exit 143; ndp_stopped=1 ndp_signalled=1' TERM
ndp_number=0 ndp_killed=

ndp_run() {
  while [ $# -gt 0 ] && [ -z "$ndp_stopped" ]; do
    ndp_name=$1 ndp_count=$2
    ndp_words=("${@:3:ndp_count}")
    shift $((ndp_count + 2))
    # A program of ours begins with these words, and they would discard the variables.
    [ "${ndp_words[*]:0:2}" = '/usr/bin/env -i' ] || ndp_words=("${ndp_with[@]}" "${ndp_words[@]}")
    ndp_count_kills
    # With job control (`set -m`) a step gets a process group of its own, and does not ignore SIGINT and SIGQUIT. It is
    # turned off again because with job control `wait` also returns when the step is only stopped.
    #
    # Standard output and standard error of a step go through one pipe. Through two pipes, the order of the lines could
    # change, and a line could arrive after the mark of the step. Only the step `copy` (copy.sh) has the container's
    # standard error. A program that an earlier step has left running may still write, but it cannot write there.
    ndp_error=8
    [ "$ndp_name" != copy ] || ndp_error=9
    set -m
    "${ndp_words[@]}" </dev/null >&8 2>&"$ndp_error" 7<&- 8>&- 9>&- &
    ndp_step=$!
    set +m
    # If a signal arrives, `wait` returns a status that is not that of the step, so it is called again. It may also
    # return when the step is only stopped. If the step ends at the moment of the signal, bash loses the status: version
    # 5.2 gives -1, and version 5.3 gives 127, as for a process that is not its child.
    while
      ndp_signalled=''
      wait "$ndp_step"
      ndp_status=$?
      [ -n "$ndp_signalled" ] || kill -0 "$ndp_step"
    do
      [ -n "$ndp_signalled" ] || sleep 0.5
    done
    if [ "$ndp_status" -lt 0 ] || { [ "$ndp_status" = 127 ] && [ -n "$ndp_stopped" ]; }; then
      ndp_status=143
    fi
    ndp_count_new_kills
    ndp_number=$((ndp_number + 1))
    printf '%d %s %d %d\n' "$ndp_number" "$ndp_name" "$ndp_status" "$ndp_killed" >>"$ndp_state/ended"
    printf '\036%s %d %s %d %d\036' "$ndp_token" "$ndp_number" "$ndp_name" "$ndp_status" "$ndp_killed" >&8
    [ "$ndp_status" = 0 ] || return
  done
}

ndp_run "$@"
# After a trap, bash goes on with `read`. So while no step runs, the trap itself ends this program on TERM.
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
