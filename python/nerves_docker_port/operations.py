"""The operations that a request over the port can name, and what a helper keeps from one request to the next.

Only this module knows both the terms of the port and the flows. It is passed to the package ``port``, so that ``port``
does not have to know any flow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nerves_docker_port import errors
from nerves_docker_port.cancellation import Cancellation
from nerves_docker_port.flows.build import ParkedBuild, archive, build
from nerves_docker_port.flows.clean import clean
from nerves_docker_port.flows.shell import prepare_for_terminal
from nerves_docker_port.port.wire import Atom, Term
from nerves_docker_port.record import journal
from nerves_docker_port.record.reporter import Reporter
from nerves_docker_port.request.request import Request, from_args, is_interactive

if TYPE_CHECKING:
    from nerves_docker_port.flows.artifact import Artifact

_SLOWEST = 10
"""How many of its slowest packages a build reports."""


class Operations:
    """The operations of one helper. One request is served at a time."""

    def __init__(self, environ: Mapping[str, str], output: int) -> None:
        """``output`` is the file descriptor for the output of a command that the user runs."""
        self._environ = environ
        self._output = output
        self._parked: ParkedBuild | None = None

    def serve(self, op: str, args: Mapping[Term, Term], reporter: Reporter, cancellation: Cancellation) -> Term:
        """Serve a request and return its value, as docs/protocol.md describes it. Raises ``RunnerError``."""
        flows: dict[str, Callable[[Request, Reporter, Cancellation], Term]] = {
            "build": self._build,
            "archive": self._archive,
            "clean": lambda request, *to: {Atom("removed"): list[Term](clean(request, self._environ, *to))},
            "shell": lambda request, *to: self._for_terminal(request, "shell", args, *to),
            "run": lambda request, *to: self._run(request, args, *to),
            "copy": lambda request, *to: self._copy(request, args, *to),
        }
        others: dict[str, Callable[[Mapping[Term, Term], Reporter, Cancellation], Term]] = {
            "doctor": self._doctor,
            "volumes": self._volumes,
            "report": self._report,
        }
        if op in others:
            return others[op](args, reporter, cancellation)
        if op not in flows:
            raise errors.bad_request(f"the operation {op} is not known to this helper")
        request = from_args(args, self._environ)
        if op != "archive":
            self.close()
        return flows[op](request, reporter, cancellation)

    def load_later(self, op: str) -> None:
        """Import the modules that ``op`` needs only at its end. The session calls this while ``op`` waits."""
        if op in ("build", "archive"):
            import nerves_docker_port.flows.artifact
            import nerves_docker_port.record.times  # noqa: F401

    def close(self) -> None:
        """End the session that is kept for a later ``archive``, if there is one."""
        parked, self._parked = self._parked, None
        if parked is not None:
            parked.end()

    def _build(self, request: Request, reporter: Reporter, cancellation: Cancellation) -> Term:
        artifact, self._parked = build(request, self._environ, reporter, cancellation)
        return _to_term(artifact, request)

    def _archive(self, request: Request, reporter: Reporter, cancellation: Cancellation) -> Term:
        parked, self._parked = self._parked, None
        artifact = archive(request, self._environ, reporter, cancellation, parked)
        return _to_term(artifact, request)

    def _for_terminal(
        self,
        request: Request,
        flow: str,
        args: Mapping[Term, Term],
        reporter: Reporter,
        cancellation: Cancellation,
    ) -> Term:
        from nerves_docker_port.shell import command

        prepare_for_terminal(request, flow, self._environ, reporter, cancellation)
        return {Atom("spec"): str(command.write_spec(args, self._environ))}

    def _run(self, request: Request, args: Mapping[Term, Term], reporter: Reporter, cancellation: Cancellation) -> Term:
        from nerves_docker_port.flows.run import run
        from nerves_docker_port.port.output import Output
        from nerves_docker_port.request import commands

        wanted = commands.command_from_args(args)
        if wanted.at_terminal:
            return self._for_terminal(request, "run", args, reporter, cancellation)
        show = Output(self._output, cancellation)
        return {Atom("status"): run(request, wanted.words, self._environ, reporter, cancellation, show)}

    def _copy(
        self, request: Request, args: Mapping[Term, Term], reporter: Reporter, cancellation: Cancellation
    ) -> Term:
        from nerves_docker_port.flows.copy import copy
        from nerves_docker_port.request import commands

        copied = copy(request, *commands.copy_from_args(args), self._environ, reporter, cancellation)
        return {Atom("path"): str(copied.path), Atom("size"): copied.size}

    def _doctor(self, args: Mapping[Term, Term], _reporter: Reporter, cancellation: Cancellation) -> Term:
        from nerves_docker_port.doctor import examine as doctor

        subject = doctor.subject(args, self._environ)
        findings = list(doctor.examine(subject, self._environ, cancellation))
        return {
            Atom("ok"): not doctor.stops_a_build(findings),
            Atom("text"): doctor.to_text(findings),
            Atom("json"): doctor.to_json(findings),
        }

    def _volumes(self, args: Mapping[Term, Term], reporter: Reporter, cancellation: Cancellation) -> Term:
        from nerves_docker_port.request import volumes
        from nerves_docker_port.volume import prune

        removed, text = prune.serve(
            None if args.get(Atom("package")) is None else from_args(args, self._environ),
            self._environ,
            reporter,
            cancellation,
            volumes.from_args(args),
            interactive=is_interactive(args),
        )
        return {Atom("removed"): list[Term](removed), Atom("text"): text}

    def _report(self, args: Mapping[Term, Term], _reporter: Reporter, _cancellation: Cancellation) -> Term:
        from nerves_docker_port.record import report
        from nerves_docker_port.request import report as request

        return {Atom("text"): report.report(request.from_args(args))}


def _to_term(artifact: Artifact, request: Request) -> Term:
    value: dict[Term, Term] = {
        Atom("path"): str(artifact.path),
        Atom("size"): artifact.size,
        Atom("sha256"): artifact.sha256,
    }
    latest = next(iter(journal.files(journal.directory(request.names))), None)
    found = None if latest is None else journal.read(latest)
    if found is not None:
        from nerves_docker_port.record import times

        slowest = times.of(found).slowest(_SLOWEST)
        value["slowest"] = [[package.name, round(package.seconds, 3)] for package in slowest]
        if found.ccache is not None:
            value["ccache"] = {"hits": found.ccache.hits, "misses": found.ccache.misses}
    return value
