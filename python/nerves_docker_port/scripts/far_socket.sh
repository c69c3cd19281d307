#!/bin/sh
# Runs in sh on the host that an ssh:// endpoint names, and prints which sockets of an engine exist there.
# Argument: the socket that the endpoint names, or nothing. Each line of the output is "nerves-docker-port WHAT VALUE".

say() {
  printf 'nerves-docker-port %s\n' "$*"
}

look() {
  if [ -S "$1" ] && [ -r "$1" ] && [ -w "$1" ]; then
    say usable "$1"
  elif [ -S "$1" ]; then
    say forbidden "$1"
  else
    say missing "$1"
  fi
}

say user "$(id -un)"
if command -v docker >/dev/null 2>&1; then
  say cli docker
fi
if [ -n "${1:-}" ]; then
  look "$1"
  exit 0
fi

# The endpoint of that host's docker CLI comes first. Then come the default socket, and the sockets of a rootless engine
# and of Podman.
chosen=$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null || printf '%s' "${DOCKER_HOST:-}")
case $chosen in
  unix://*) look "${chosen#unix://}" ;;
  ?*) say elsewhere "$chosen" ;;
esac
runtime=${XDG_RUNTIME_DIR:-/run/user/$(id -u)}
for path in /var/run/docker.sock "$runtime/docker.sock" "$HOME/.docker/run/docker.sock" \
  /run/podman/podman.sock "$runtime/podman/podman.sock"; do
  look "$path"
done
