"""Builds the builder images from the Dockerfiles in `images/`, on a base that needs no registry.

The base is a Debian root file system made by debootstrap and imported into the engine. If a registry can be reached,
NERVES_DOCKER_PORT_BASE_IMAGE (for example, `debian:bookworm-slim`) names another image as the base.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from integration.engine import Api
from integration.host import WorldError, apt_install, cache_dir, is_root, locked, logged, say, unmount

if TYPE_CHECKING:
    from collections.abc import Iterator

IMAGES = Path(__file__).resolve().parent / "images"
KINDS = ("new", "new-1.28.0", "old")
REPOSITORY = "nerves_docker_port/builder"
BASE = "nerves_docker_port/base:bookworm"
RECIPE = "nerves_docker_port.recipe"
SUITE = "bookworm"
PACKAGES = ("ccache", "gcc", "libc6-dev", "make", "openssh-client", "procps", "sudo", "vim-tiny", "xz-utils")
# These directories are removed from the base: no build needs them, and they are half of its size.
USELESS = (
    *("usr/share/doc", "usr/share/man", "usr/share/info", "usr/share/locale"),
    *("var/cache/apt", "var/lib/apt/lists", "var/log"),
)


def tag_of(kind: str) -> str:
    """Return the tag of a kind of builder image. Raises `WorldError` if there is no such kind."""
    if kind not in KINDS:
        raise WorldError(f"there is no image {kind!r}: one of {', '.join(KINDS)}")
    return f"{REPOSITORY}:{kind}"


def ensure_image(kind: str, host: str | None = None) -> str:
    """Make sure that the engine at `host` (default: $DOCKER_HOST) has the builder image of that kind; return its tag.

    The image is built again if its Dockerfile or the base has changed.
    """
    tag = tag_of(kind)
    api = Api(host or os.environ["DOCKER_HOST"])
    context = IMAGES / kind
    with locked("images"):
        base = os.environ.get("NERVES_DOCKER_PORT_BASE_IMAGE") or BASE
        recipe = _digest(base, SUITE, *PACKAGES, *USELESS, *(file.read_text() for file in sorted(context.iterdir())))
        outdated, made_of = _find_image(api, tag)
        if made_of == recipe:
            return tag
        if base == BASE:
            _ensure_base(api)
        say(f"building the image {tag}")
        query = {
            "t": tag,
            "buildargs": json.dumps({"BASE_IMAGE": base, "PACKAGES": " ".join(PACKAGES)}),
            "labels": json.dumps({RECIPE: recipe}),
            "networkmode": "host",
            "forcerm": "1",
        }
        api.events(f"/build?{urllib.parse.urlencode(query)}", body=_pack(context), what=f"build {tag}")
        _remove_outdated(api, outdated)
    return tag


def _ensure_base(api: Api) -> None:
    recipe = _digest(SUITE, *PACKAGES, *USELESS)
    outdated, made_of = _find_image(api, BASE)
    if made_of == recipe:
        return
    file = _root_tar(recipe)
    name, _, tag = BASE.partition(":")
    query = urllib.parse.urlencode({"fromSrc": "-", "repo": name, "tag": tag, "changes": f"LABEL {RECIPE}={recipe}"})
    say(f"importing the base image ({file.stat().st_size >> 20} MiB)")
    with file.open("rb") as body:
        api.events(f"/images/create?{query}", body=body, what=f"import {BASE}")
    _remove_outdated(api, outdated)


def _root_tar(recipe: str) -> Path:
    """Return the tar file of the base's root file system. It is made once and kept in the cache."""
    file = cache_dir() / f"base-{SUITE}-{recipe[:12]}.tar"
    if file.exists():
        return file
    with debootstrapped(cache_dir() / "base.new", SUITE, PACKAGES) as root:
        for name in USELESS:
            shutil.rmtree(root / name, ignore_errors=True)
        new = file.with_suffix(".new")
        argv = ["tar", "--create", "--numeric-owner", f"--file={new}", f"--directory={root}", "."]
        logged(argv, cache_dir() / "logs" / "tar.log")
        new.replace(file)
    return file


@contextlib.contextmanager
def debootstrapped(root: Path, suite: str, packages: tuple[str, ...]) -> Iterator[Path]:
    """Make a root file system with these packages at `root`. After the block it is removed, unless it was moved."""
    apt_install(["debootstrap", "xz-utils"], "a Debian root file system is to be made")
    say(f"making a Debian {suite} root file system; this takes a minute, once")
    _remove_root(root)
    try:
        logs = cache_dir() / "logs"
        logged(["debootstrap", "--variant=minbase", suite, str(root)], logs / f"debootstrap-{suite}.log")
        # debootstrap has the option --include, but does not configure the packages in the order of their dependencies.
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        install = ["apt-get", "-o", "Acquire::Retries=3", "install", "-y", "--no-install-recommends", *packages]
        logged(["chroot", str(root), *install], logs / f"install-{suite}.log", quiet)
        unmount(root)  # debootstrap leaves its /proc mounted
        yield root
    finally:
        _remove_root(root)


def ensure_root(suite: str, packages: tuple[str, ...]) -> Path:
    """Make sure that a root file system of this Debian release with these packages is in the cache; return its path."""
    recipe = hashlib.sha256("\0".join(packages).encode()).hexdigest()[:12]
    root = cache_dir() / "roots" / f"{suite}-{recipe}"
    with locked(f"root-{suite}"):
        if root.exists():
            return root
        if not is_root():
            raise WorldError(f"a root file system of Debian {suite} is needed: run this as root once")
        root.parent.mkdir(exist_ok=True)
        with debootstrapped(root.parent / f"{suite}.new", suite, packages) as new:
            for name in ("var/cache/apt", "usr/share/doc", "usr/share/man"):
                shutil.rmtree(new / name, ignore_errors=True)
            new.rename(root)
    return root


def _remove_root(root: Path) -> None:
    if root.exists():
        unmount(root)
        shutil.rmtree(root)


def _find_image(api: Api, tag: str) -> tuple[str | None, str | None]:
    """Return the id of the image with this tag, and the digest of its recipe; `None` for what does not exist."""
    image = api.json(f"/images/{tag}/json") or {}
    label = (image.get("Config") or {}).get("Labels") or {}
    return image.get("Id"), label.get(RECIPE)


def _remove_outdated(api: Api, image: str | None) -> None:
    """Remove an image whose tag now names a newer one. The engine refuses this while a container uses the image."""
    if image is not None:
        api.request("DELETE", f"/images/{image}")


def _pack(context: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(context, arcname=".")
    return packed.getvalue()


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
