# shellcheck shell=bash
# Copies a file to the helper: writes it to standard error, where nothing else writes (steps.sh).
#
# Arguments: the token of the marks, the file.
#
# The mark `file` comes first (steps.sh says what a mark is), with the size of the file as its last number. Then comes
# the content. Ends with status 66 if there is no such regular file, and with status 65 if the file has become shorter.
#
# The file is an archive that the step before has packed. That step has just written its line to `ended`. inputs.sh
# needs the time of that line, so another file gets it before this step writes its own line there.
touch -r /nerves-docker-port/ended /nerves-docker-port/tmp/packed
ndp_size=$([ -f "$2" ] && [ ! -L "$2" ] && stat -c %s -- "$2") || exit 66
printf '\036%s 0 file 0 %d\036' "$1" "$ndp_size" >&2
head -c "$ndp_size" -- "$2" >&2 || exit
[ "$(stat -c %s -- "$2")" -ge "$ndp_size" ] || exit 65
