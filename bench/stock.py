"""The stock runner as a contender: its recorded invocations of the `docker` CLI are replayed word for word."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence

from bench.measure import Sample, timed
from bench.place import WORKDIRS, Log, Place, check_log, mounts
from integration.host import REPOSITORY, WorldError

RECORDED = REPOSITORY / "tests" / "conformance" / "stock-1.14.1"


def cold_build_with_archive(place: Place, image: str, recorded: str) -> Sample:
    """Replay a recorded `mix nerves.artifact` on a new volume, without an earlier build."""
    place.reset(image)
    system = place.system(image)
    values = {
        "<volume>": place.new_volume(),
        "<image>": image,
        "<artifact>": system.artifact.name.removesuffix(".tar.gz"),
        "<download_dir>": str(system.root / "dl"),
        "<package>": str(system.package),
        "<platform>": str(system.root / "platform"),
        "<home>": str(system.root / "home"),
    }
    invocations = [[_filled(word, values) for word in words] for words in _recorded(recorded)]
    log = place.directory / "stock.log"

    def replay() -> None:
        with log.open("wb") as output:
            for words in invocations:
                done = subprocess.run(["docker", *words], env=place.env(), stdout=output, stderr=output, check=False)
                if done.returncode != 0:
                    raise WorldError(f"`docker {' '.join(words)}` ended with {done.returncode}:\n{log.read_text()}")

    seconds = timed(replay)
    if not system.artifact.exists():
        raise WorldError(f"the replay left no {system.artifact}")
    place.docker("volume", "rm", values["<volume>"])
    return Sample(seconds)


def step(place: Place, log: Log) -> Sample:
    """Replay the recorded `make` step of the new image with a command that writes `log`, and its output to a file."""
    system = place.system()
    volume = place.new_volume()
    place.docker("volume", "create", "--name", volume)
    values = {
        "<volume>": volume,
        "<image>": system.image,
        "<download_dir>": str(system.root / "dl"),
        "<package>": str(system.package),
        "<platform>": str(system.root / "platform"),
        "<home>": str(system.root / "home"),
    }
    words = next(words for words in _recorded("artifact_new_image.json") if words[-2:] == ["make", "LINES=1"])
    try:
        return _to_file(place, [*(_filled(word, values) for word in words[:-2]), *log.command], log)
    finally:
        place.docker("volume", "rm", volume)


def plain_run(place: Place, log: Log, driver: str) -> Sample:
    """Run `docker run` as a person would type it, with its output to a file."""
    system = place.system()
    options = ["--rm", "--log-driver", driver, "-a", "stdout", "-a", "stderr", *mounts(system)]
    return _to_file(place, ["run", *options, f"-w={WORKDIRS[system.image]}", system.image, *log.command], log)


def run_nothing(place: Place) -> Sample:
    """Run `docker run ... true`, to measure the cost of an empty container."""
    system = place.system()
    words = ["run", "--rm", "--log-driver", "none", *mounts(system), system.image, "true"]
    return Sample(timed(lambda: place.docker(*words)))


def copy(place: Place, volume: str, source: str) -> Sample:
    """Copy a file to the host as the stock runner does: with `cp` in a separate container."""
    system = place.system()
    target = system.root / "dl" / "copied"
    target.unlink(missing_ok=True)
    words = ["run", "--rm", f"--mount=type=volume,src={volume},target=/home/nerves/project", *mounts(system)]
    seconds = timed(
        lambda: place.docker(*words, "--user", "0:0", system.image, "cp", source, f"/nerves/dl/{target.name}")
    )
    return Sample(seconds)


def _to_file(place: Place, words: Sequence[str], log: Log) -> Sample:
    path = place.directory / "stock.log"

    def run() -> None:
        with path.open("wb") as output:
            subprocess.run(["docker", *words], env=place.env(), stdout=output, stderr=subprocess.DEVNULL, check=True)

    seconds = timed(run)
    check_log(path, log, "docker run")
    return Sample(seconds)


def _recorded(name: str) -> list[list[str]]:
    recorded: list[list[str]] = json.loads((RECORDED / name).read_text())["docker_argv"]
    return recorded


def _filled(word: str, values: dict[str, str]) -> str:
    for placeholder, value in values.items():
        word = word.replace(placeholder, value)
    if "<" in word:
        raise WorldError(f"nothing is known to fill {word} with")
    return word
