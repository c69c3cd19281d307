"""Counts the hits of the compile cache after the steps of a flow, reports them to the user, and records them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from nerves_docker_port import errors
from nerves_docker_port.flows.job import Job
from nerves_docker_port.record import journal
from nerves_docker_port.request.settings import Settings
from nerves_docker_port.volume.steps import Step
from nerves_docker_port.workspace import cache
from nerves_docker_port.workspace.mounted import bash


def counting_steps(settings: Settings) -> list[Step]:
    """Return the step that counts the hits after the last step that compiles, or no step if no cache is configured."""
    return [Step("ccache_count", bash("ccache-count", "ccache_count.sh"))] if cache.is_on(settings) else []


@contextmanager
def report_use(job: Job) -> Iterator[None]:
    """Report what the cache did in the body, even if the body fails. The body must also run the ``counting_steps``."""
    counting = counting_steps(job.request.settings)
    try:
        yield
    except errors.RunnerError:
        if counting and not job.cancellation.requested:
            # The error of the body matters more than an error here.
            with suppress(errors.RunnerError):
                job.attempt(counting)
                _report(job)
        raise
    if counting:
        with suppress(errors.RunnerError):
            _report(job)


def _report(job: Job) -> None:
    engine, store = job.session.engine, job.request.settings.remote_cache
    with engine.failures("while the compile cache's figures were read"):
        found = cache.counted(engine, job.session.container)
    if found is None:
        return
    remote = None if store is None else found.remote_hits
    job.reporter.record(journal.Ccache(found.hits, found.misses, remote))
    compiled = found.hits + found.misses
    if compiled:
        share = f"{100 * found.hits / compiled:.0f} % hits ({found.hits} of {compiled}"
        where = "" if store is None else f", {found.remote_hits} of them from {store.address}"
        job.reporter.headline(f"Compiler cache: {share}{where})")
    if store is not None and found.lost:
        job.reporter.warning(errors.ccache_lost(store.address))
    elif store is not None and found.errors:
        job.reporter.warning(errors.ccache_failed(store.address, found.errors, compiled))
