# shellcheck shell=bash
# Gives ccache the team's store, if that answers, and keeps looking while the session lasts. Arguments: the token of the
# marks, then the words of the program to become afterwards. Stands behind say.sh.
#
# The address may hold a password, so it is neither in the environment, which many a configure script prints, nor in an
# argument. The helper puts it into the state directory when it is asked: `ccache.on` and `ccache.off` are configurations
# for ccache with the store and without; `ccache.probe` has the host, the port, how many lines of an answer matter, what
# each of them looks like where the store can be used, and how many milliseconds it may take at the beginning;
# `ccache.question` is what to ask.
#
# ccache reads the configuration anew each time it runs (CCACHE_CONFIGPATH2), so a store that stops answering can be left
# out from then on: every compilation would wait for it. What is found out goes into the files
# `found` (`MILLISECONDS` or `none`, then the answer), and `lost` if the store was lost later.
ndp_token=$1
shift
ndp_state=/nerves-docker-port ndp_files=/tmp/nerves-docker-port.ccache-

# Asks the store, and prints how many milliseconds its answer took and the answer. Argument: seconds to wait.
# bash has the connections, and the image need not have a program for them.
ndp_ask_store() {
  {
    read -r ndp_host
    read -r ndp_port
    read -r ndp_lines
  } <"$ndp_state/ccache.probe"
  # shellcheck disable=SC2016 # the inner bash is to expand these
  timeout "$1" bash -c '
    ndp_began=${EPOCHREALTIME/[.,]/}
    exec 3<>"/dev/tcp/$1/$2" && cat "$4" >&3 || exit
    ndp_said=
    for ((ndp_line = 0; ndp_line < $3; ndp_line++)); do
      IFS= read -r ndp_text <&3 || exit
      ndp_said+=${ndp_text%$'"'\\r'"'}$'"'\\n'"'
    done
    ndp_now=${EPOCHREALTIME/[.,]/}
    printf "%d\n%s" "$(((ndp_now - ndp_began) / 1000))" "$ndp_said"
  ' bash "$ndp_host" "$ndp_port" "$ndp_lines" "$ndp_state/ccache.question" 2>/dev/null
}

# Whether an answer is there, is good, and took at most so many milliseconds. Arguments: the answer, the milliseconds.
ndp_is_good() {
  [ -n "$1" ] && [ "${1%%$'\n'*}" -le "$2" ] || return
  ndp_good=$(sed -n 4p "$ndp_state/ccache.probe")
  ! printf '%s\n' "${1#*$'\n'}" | grep -qvE "$ndp_good"
}

ndp_use() {
  cp "$ndp_state/ccache.$1" "${ndp_files}new" && mv "${ndp_files}new" "${ndp_files}conf"
}

# The limits here are wider than at the beginning: the machine is busy now, and the store need not be slow.
ndp_watch() {
  ndp_now=$1
  while sleep 2; do
    ndp_next=off
    for _ in 1 2; do
      ! ndp_is_good "$(ndp_ask_store 1)" 500 || { ndp_next=on && break; }
    done
    [ "$ndp_next" != "$ndp_now" ] || continue
    ndp_use "$ndp_next"
    [ "$ndp_next" = on ] || : >"${ndp_files}lost"
    ndp_now=$ndp_next
  done
}

ndp_ask "$ndp_token" ccache
ndp_best=
# The best of three, because the first may have to look up a name, and the machine may be busy.
for _ in 1 2 3; do
  ndp_answer=$(ndp_ask_store 2)
  [ -n "$ndp_answer" ] || break
  [ -n "$ndp_best" ] && [ "${ndp_best%%$'\n'*}" -le "${ndp_answer%%$'\n'*}" ] || ndp_best=$ndp_answer
done
printf '%s\n' "${ndp_best:-none}" >"${ndp_files}found"
if ndp_is_good "$ndp_best" "$(sed -n 5p "$ndp_state/ccache.probe")"; then
  ndp_use on
  ndp_watch on </dev/null >/dev/null 2>&1 7<&- &
else
  ndp_use off
fi
ndp_say "$ndp_token" ccache_found
exec "$@"
