"""What engines say, and the words that lead somewhere from there."""

from __future__ import annotations

import pytest

from nerves_docker_port import errors
from nerves_docker_port.errors import Code

SEEN = "The engine does not see the directories"

MOUNTABLE = "Podman cannot mount a path with a comma"

REFUSALS = [
    ('invalid mount config for type "bind": bind source path does not exist: /home/me/p', "engine_permission", SEEN),
    (
        "Mounts denied: \nThe path /opt/p is not shared from the host and is not known to Docker.\n",
        "engine_permission",
        "Docker Desktop: Settings, Resources, File sharing",
    ),
    ("Mounts denied: The paths /x and /y are not shared from OS X and are not known to it.", "engine_permission", SEEN),
    ("user declined directory sharing /opt/p", "engine_permission", SEEN),
    ("Drive has not been shared", "engine_permission", SEEN),
    ("statfs /home/me/p: no such file or directory", "engine_permission", SEEN),
    (
        "error while creating mount source path '/home/me/p': mkdir /home/me: read-only file system",
        "engine_permission",
        SEEN,
    ),
    ("failed to create mount source path '/x': mkdir /x: permission denied", "engine_permission", SEEN),
    (
        'error mounting "/home/me/p" to rootfs at "/nerves/dl": mount /home/me/p:/nerves/dl: not a directory: unknown',
        "engine_permission",
        SEEN,
    ),
    (
        'rootfs_linux.go:76: mounting "/home/me/p" to rootfs at "/x" caused: mount through procfd: permission denied',
        "engine_permission",
        "may not open the directory",
    ),
    ("crun: mount `/home/me/p` to `x`: Permission denied: OCI permission denied", "engine_permission", "namei -l"),
    ("crun: cannot stat'ing file `/home/me/p`: Permission denied", "engine_permission", "namei -l"),
    ("statfs /home/me/p: permission denied", "engine_permission", "may not open the directory"),
    ('relabel failed "/home/me/p": operation not permitted', "engine_permission", "chcon -Rt container_file_t"),
    ("SELinux relabeling of /usr is not allowed", "engine_permission", "chcon -Rt container_file_t"),
    ('lsetxattr "/mnt/p": operation not supported', "engine_permission", "chcon -Rt container_file_t"),
    ("authorization denied by plugin opa: no", "engine_permission", "whoever runs the engine"),
    ('could not select device driver "" with capabilities: [[gpu]]', "bad_request", "`DeviceRequests`"),
    ("unknown or invalid runtime name: runsc", "bad_request", "`Runtime`"),
    (
        'OCI runtime create failed: runc create failed: exec: "setpriv": executable file not found in $PATH: unknown',
        "image_unavailable",
        "not in the image",
    ),
    (
        "driver failed programming external connectivity on endpoint x: iptables: No chain/target/match by that name",
        "internal",
        "systemctl restart docker",
    ),
    (
        "netavark: nftables error: unable to execute nft: No such file or directory (os error 2)",
        "internal",
        "lacks the program for its firewall rules",
    ),
    ('exec: "iptables": executable file not found in $PATH', "internal", "in the package `nftables` or `iptables`"),
    ("fill out specgen: b/dl: invalid mount option", "bad_request", MOUNTABLE),
    ('fill out specgen: parse error on line 1, column 37: bare " in non-quoted-field', "bad_request", MOUNTABLE),
    ("fill out specgen: incorrect mount format: should be --mount type=<bind|", "bad_request", MOUNTABLE),
    (
        'error mounting "cgroup" to rootfs at "/sys/fs/cgroup": no such file or directory',
        "internal",
        "Leave out `cpus`",
    ),
    (
        'error mounting "/home/me/f" to rootfs at "/tmp": mount /home/me/f:/tmp: not a directory: unknown',
        "bad_request",
        "Choose another target",
    ),
    (
        'error mounting "/home/me/d" to rootfs at "/x/sub": mkdir /overlay2/a/x/sub: read-only file system: unknown',
        "bad_request",
        "Choose another target",
    ),
    ("crun: mount `/home/me/f` to `/tmp`: Not a directory", "bad_request", "Choose another target"),
    ("write /var/lib/docker/tmp/x: no space left on device", "disk_full", "Free some space"),
    ("something else", "internal", "`sudo journalctl -u docker`"),
]


@pytest.mark.parametrize(("said", "code", "remedy"), REFUSALS, ids=[said[:40] for said, _, _ in REFUSALS])
def test_what_an_engine_says_leads_to_a_remedy(said: str, code: str, remedy: str) -> None:
    error = errors.engine_refused("while it made the container", said)
    assert error.code is Code(code)
    assert said in error.message
    assert remedy in (error.hint or "")
