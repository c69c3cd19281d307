#!/bin/sh
# Runs on the host that an ssh:// endpoint names, with that host's sh, and says what engine's sockets are there.
# Argument: the socket that the endpoint names, or nothing. Each line of the answer is "nerves-docker-port WHAT VALUE".

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

# What the docker CLI there would use goes first; then the default socket, a rootless engine's, and Podman's.
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
