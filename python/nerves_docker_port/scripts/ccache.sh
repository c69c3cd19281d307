# shellcheck shell=bash
# Configures ccache to use the team's store if the store answers, and checks the store until the session ends.
#
# Arguments: the token of the marks, then the words of the program to execute afterwards. This text comes after say.sh
# in one program.
#
# The store's address can contain a password. So it is not in the environment, which many configure scripts print, and
# not in an argument. The helper puts these files into the state directory when this script asks for them:
#   ccache.on, ccache.off  the configurations of ccache with the store and without it
#   ccache.probe           five lines: the host, the port, the number of lines of the answer to check, the regular
#                          expression that each of them matches if the store can be used, and the number of milliseconds
#                          that the first answer may take
#   ccache.question        the bytes to send to the store
#
# ccache reads its configuration each time it runs (CCACHE_CONFIGPATH2). So if the store stops answering, this script
# changes the configuration, because otherwise every compilation would wait for the store. It writes the result of the
# first check to the file `found` (`MILLISECONDS` or `none`, then the answer), and makes the file `lost` if the store is
# lost later.
ndp_token=$1
shift
ndp_state=/nerves-docker-port ndp_files=/nerves-docker-port/tmp/ccache-

# ndp_ask_store SECONDS LINE_SECONDS: send the question to the store, and print the milliseconds until the answer, and the
# answer. Wait at most SECONDS for all of it, and at most LINE_SECONDS for each line. bash makes the connection itself,
# because the image may have no program for that.
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
      IFS= read -r -t "$5" ndp_text <&3 || exit
      ndp_said+=${ndp_text%$'"'\\r'"'}$'"'\\n'"'
    done
    ndp_now=${EPOCHREALTIME/[.,]/}
    printf "%d\n%s" "$(((ndp_now - ndp_began) / 1000))" "$ndp_said"
  ' bash "$ndp_host" "$ndp_port" "$ndp_lines" "$ndp_state/ccache.question" "$2" 2>/dev/null
}

# ndp_is_good ANSWER MILLISECONDS: succeed if there is an answer, it says that the store can be used, and it took at
# most MILLISECONDS.
ndp_is_good() {
  [ -n "$1" ] && [ "${1%%$'\n'*}" -le "$2" ] || return
  ndp_good=$(sed -n 4p "$ndp_state/ccache.probe")
  ! printf '%s\n' "${1#*$'\n'}" | grep -qvE "$ndp_good"
}

ndp_use() {
  cp "$ndp_state/ccache.$1" "${ndp_files}new" && mv "${ndp_files}new" "${ndp_files}conf"
}

# ndp_look: set ndp_seen to `good`, `slow` or `silent`. The build keeps the machine busy, and that can delay the answer of
# a good store. So a store that does not answer at once is asked again with more time, and only counts as silent if it
# has not answered three times in a row, in 1.75 seconds together.
ndp_look() {
  ndp_seen=silent
  if ndp_is_good "$(ndp_ask_store 0.5 0.25)" 250; then
    ndp_seen=good
  elif ndp_is_good "$(ndp_ask_store 0.75 0.5)" 750 || ndp_is_good "$(ndp_ask_store 1.5 1)" 1500; then
    ndp_seen=slow
  fi
}

# ndp_watch: check the store twice a second. A store that hangs delays every compilation by half a second, so it is left
# out when it is silent. A store that is slow six times in a row costs each compilation more than it gives, so it is left
# out, too. It is used again when it is good again. One check takes some 3 ms of CPU time.
ndp_watch() {
  ndp_now=on ndp_next=on ndp_slow=0
  while sleep 0.5; do
    ndp_look
    case $ndp_seen in
      good) ndp_next=on ndp_slow=0 ;;
      silent) ndp_next=off ;;
      slow) ndp_slow=$((ndp_slow + 1)) && [ "$ndp_slow" -lt 6 ] || ndp_next=off ;;
    esac
    [ "$ndp_next" != "$ndp_now" ] || continue
    ndp_use "$ndp_next"
    [ "$ndp_next" = on ] || : >"${ndp_files}lost"
    ndp_now=$ndp_next
  done
}

ndp_ask "$ndp_token" ccache
ndp_best=
# The fastest of three answers counts, because the first one may include a look-up of the name, and the machine may be
# busy.
for _ in 1 2 3; do
  ndp_answer=$(ndp_ask_store 2 2)
  [ -n "$ndp_answer" ] || break
  [ -n "$ndp_best" ] && [ "${ndp_best%%$'\n'*}" -le "${ndp_answer%%$'\n'*}" ] || ndp_best=$ndp_answer
done
printf '%s\n' "${ndp_best:-none}" >"${ndp_files}found"
if ndp_is_good "$ndp_best" "$(sed -n 5p "$ndp_state/ccache.probe")"; then
  ndp_use on
  ndp_watch </dev/null >/dev/null 2>&1 7<&- &
else
  ndp_use off
fi
ndp_say "$ndp_token" ccache_found
exec "$@"
