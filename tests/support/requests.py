"""The arguments of a request as the shim sends them, for tests that do not run Elixir."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nerves_docker_port.port.wire import Atom, Term


def package_struct(app: str, path: Path | str, config: list[Term], *, version: str = "0.1.0", **fields: Term) -> Term:
    """Return a ``%Nerves.Package{}`` as a term."""
    return {
        Atom("__struct__"): Atom("Elixir.Nerves.Package"),
        Atom("app"): Atom(app),
        Atom("path"): str(path),
        Atom("version"): version,
        Atom("type"): Atom("system"),
        Atom("config"): config,
        **{Atom(name): value for name, value in fields.items()},
    }


def keyword(**values: Term) -> list[Term]:
    """Return an Elixir keyword list as a term."""
    return [(Atom(name), value) for name, value in values.items()]


LIVE_TERMINAL: Term = {Atom("interactive"): False, Atom("columns"): 80, Atom("ansi"): True, Atom("status"): True}
"""The terminal of a peer that shows where a build is."""


def arguments(
    root: Path,
    *,
    image: str | None = None,
    dockerfile: str = "Dockerfile",
    app: str = "my_system",
    package: Path | None = None,
    platform: Path | None = None,
    platform_version: str | None = "1.34.0",
    make_args: Sequence[str] = (),
    home: Path | None = None,
    env: dict[str, str] | None = None,
    defconfig: Term = "nerves_defconfig",
    runner_config: list[Term] | None = None,
    interactive: bool = False,
    artifact: str | None = None,
    cwd: Path | None = None,
    download_dir: Path | None = None,
) -> dict[Term, Term]:
    """Return the arguments for a system in the directory ``root``: its package, a platform, names and paths."""
    package = package or root / "my_system"
    platform = platform or root / "platform"
    artifact = artifact or f"{app}-portable-0.1.0-ABCDEF0"
    config: list[Term] = list(runner_config or [])
    if image is not None:
        config.append((Atom("docker"), (dockerfile, image)))
    download_dir = download_dir or root / "dl"
    environment = dict[Term, Term]((("TERM", "xterm-256color"), *(env or {}).items()))
    return {
        Atom("package"): package_struct(
            app,
            package,
            keyword(
                platform_config=keyword(defconfig=defconfig), **({"build_runner_config": config} if config else {})
            ),
        ),
        Atom("toolchain"): None,
        Atom("platform"): package_struct(
            "nerves_system_br", platform, [], version=platform_version or "", type=Atom("system_platform")
        )
        if platform_version is not None
        else package_struct("nerves_system_br", platform, []) | {Atom("version"): None},  # type: ignore[operator]
        Atom("opts"): keyword(make_args=list(make_args)) if make_args else [],
        Atom("names"): {
            Atom("artifact"): artifact,
            Atom("extension"): ".tar.gz",
            Atom("download_path"): str(download_dir / f"{artifact}.tar.gz"),
            Atom("download_dir"): str(download_dir),
            Atom("build_path"): str(package / ".nerves" / "artifacts" / f"{app}-portable-0.1.0"),
            Atom("cache_path"): str(root / "artifacts" / f"{app}-portable-0.1.0"),
        },
        Atom("cwd"): str(cwd or package),
        Atom("home"): str(home or root / "home"),
        Atom("env"): environment,
        Atom("terminal"): {Atom("interactive"): interactive, Atom("columns"): 80, Atom("ansi"): False},
    }
