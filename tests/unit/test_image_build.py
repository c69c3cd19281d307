"""What is said of an image build that failed: which step, why, and what to do."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from nerves_docker_port import errors
from nerves_docker_port.image import build as image_build
from nerves_docker_port.image.context import Context
from nerves_docker_port.record.log import BuildLog


def test_a_step_that_buildkit_reports_after_the_error_is_not_named_as_failed(tmp_path: Path) -> None:
    """BuildKit runs steps in parallel. If two steps wait for the context, it reports them in any order."""
    with BuildLog(tmp_path / "build.log", lambda _lines: None) as log:
        output = image_build._Output(log, Mock())
        steps = image_build._BuildKitSteps(output)
        for line in (
            b"#4 [1/3] FROM docker.io/library/base:1\n",
            b"#6 [3/3] COPY none /none\n",
            b'#6 ERROR: "/none" not found: not found\n',
            b"#7 [2/3] COPY tool /tool\n",
            b"#7 CANCELED\n",
            b'ERROR: failed to solve: failed to compute cache key: "/none" not found: not found\n',
        ):
            steps.take(line)
    assert output.failed_step == "Step 3/3 : COPY none /none"
    assert steps.reason == 'failed to compute cache key: "/none" not found: not found'


NEEDS = "The Dockerfile needs BuildKit"
BASE = "The base image could not be had."
MEND = "Correct the Dockerfile"

WITHOUT_BUILDKIT = [
    # Dockerfile, step that failed, what Docker 20.10's own builder says, the remedy
    ("RUN <<EOT\nset -e\nEOT\n", None, "dockerfile parse error line 3: unknown instruction: SET", NEEDS),
    ("RUN bash <<-'EOT'\nx\nEOT\n", None, "dockerfile parse error line 3: unknown instruction: X", NEEDS),
    ("COPY <<EOT /x\nEOT\n", None, "dockerfile parse error line 3: unknown instruction: EOT", NEEDS),
    ("ONBUILD RUN <<EOT\nx\nEOT\n", None, "dockerfile parse error line 3: unknown instruction: X", NEEDS),
    ("onbuild  copy --link a /x\n", None, "dockerfile parse error line 2: Unknown flag: link", NEEDS),
    ("RUN --mount=type=cache,target=/x true", "Step 2/2 : RUN --mount", "the --mount option requires BuildKit.", NEEDS),
    ("COPY --chmod=755 a /x", "Step 2/2 : COPY", "the --chmod option requires BuildKit. Refer to ...", NEEDS),
    ("COPY --link a /x", None, "dockerfile parse error line 2: Unknown flag: link", NEEDS),
    ("ADD --checksum=sha256:a a /x", None, "dockerfile parse error line 2: Unknown flag: checksum", NEEDS),
    ("RUN --network=none true", None, "dockerfile parse error line 2: Unknown flag: network", NEEDS),
    ("RUN true", "Step 1/2 : FROM --platform=$BUILDPLATFORM b", 'failed to parse platform : "" is an inv', NEEDS),
    (
        'ARG TARGETARCH\nRUN test -n "$TARGETARCH"',
        'Step 3/3 : RUN test -n "$TARGETARCH"',
        "The command '/bin/sh -c test' returned a non-zero code: 1",
        NEEDS,
    ),
    ("RUNN true", None, "dockerfile parse error line 2: unknown instruction: RUNN", MEND),
    ("COPY --chmd=1 a /x", None, "dockerfile parse error line 2: Unknown flag: chmd", MEND),
    ("RUNN cat\nRUN --mount=type=cache,target=/x true", None, "parse error line 2: unknown instruction: RUNN", MEND),
    ("RUN false", "Step 2/2 : RUN false", "The command '/bin/sh -c false' returned a non-zero code: 1", MEND),
    ("RUN cat <<< x", "Step 2/2 : RUN cat <<< x", "The command returned a non-zero code: 2", MEND),
]


@pytest.mark.parametrize(
    ("instructions", "step", "reason", "hint"), WITHOUT_BUILDKIT, ids=lambda value: str(value)[:40]
)
def test_what_needs_buildkit_is_said_to(
    instructions: str, step: str | None, reason: str, hint: str, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM scratch\n{instructions}\n")
    context = Context(tmp_path / "Dockerfile")
    error = errors.image_build_failed(
        "t:1", "Dockerfile", step, reason, "", "build.log", buildkit_only=context.buildkit_only() or ""
    )
    assert error.code is errors.Code.IMAGE_BUILD_FAILED
    assert (error.hint or "").startswith(hint)
    if hint == NEEDS:
        assert "sudo apt-get install docker-buildx\n" in (error.hint or "")
    # With BuildKit, it is never that.
    with_buildkit = errors.image_build_failed("t:1", "Dockerfile", step, reason, "", "build.log")
    assert NEEDS not in (with_buildkit.hint or "")


def test_syntax_that_a_line_of_the_dockerfile_asks_for_needs_buildkit(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("# syntax=docker/dockerfile:1.7-labs\nFROM scratch\nFETCH x\n")
    what = Context(tmp_path / "Dockerfile").buildkit_only()
    assert what == "its line `# syntax=docker/dockerfile:1.7-labs`"
    error = errors.image_build_failed(
        "t:1", "D", None, "dockerfile parse error line 3: unknown instruction: FETCH", "", "l", buildkit_only=what
    )
    assert (error.hint or "").startswith(f"{NEEDS} ({what}).")


NO_HOST = "dial tcp: lookup registry-1.docker.io on 10.0.0.1:53: no such host"

OF_REGISTRIES = [
    ("Step 1/2 : FROM x:1", f'Get "https://registry-1.docker.io/v2/": {NO_HOST}', "its network and proxy"),
    (
        None,
        f"x:1: failed to resolve source metadata for docker.io/library/x:1: failed to do request: {NO_HOST}",
        "proxy",
    ),
    ("Step 2/2 : COPY --from=x:1 /x /x", f"invalid from flag value x:1: Get: {NO_HOST}", "its network and proxy"),
    (
        "Step 1/2 : FROM x:1",
        "pull access denied for x, repository does not exist or may require 'docker login': denied: requested access",
        "log in first: `docker login`. Check the name after FROM",
    ),
    (
        "Step 1/2 : FROM --platform=linux/amd64 ghcr.io/acme/x:1 AS b",
        "denied",
        "log in first: `docker login ghcr.io`.",
    ),
    (None, "r.acme.test:5000/x:1: failed to resolve source metadata: 401", "`docker login r.acme.test:5000`"),
    ("Step 2/2 : COPY --from=localhost/x:1 /x /x", "invalid from flag value: denied", "`docker login localhost`"),
    (None, "failed to authorize: failed to fetch oauth token: unexpected status: 401 Unauthorized", "docker login"),
    ("Step 1/2 : FROM x:1", "toomanyrequests: You have reached your pull rate limit.", "limits how much may be pulled"),
    ("Step 1/2 : FROM x:1", "unexpected status code 429 Too Many Requests", "limits how much may be pulled"),
    ("Step 1/2 : FROM alpine:9.99", "manifest for alpine:9.99 not found: manifest unknown", "after FROM in the"),
    (None, "docker.io/library/alpine:9.99: not found: failed to resolve source metadata", "after FROM in the"),
    ("Step 1/2 : FROM UPPER:1", "invalid reference format: repository name must be lowercase", "in lower case"),
    (None, 'failed to parse stage name "UPPER:1": invalid reference format: must be lowercase', "in lower case"),
    ("Step 1/2 : FROM r/x:1", "x509: certificate signed by unknown authority", "does not trust the registry"),
    ("Step 1/2 : FROM r/x:1", "no matching manifest for linux/arm64/v8 in the manifest list", "architecture"),
]


@pytest.mark.parametrize(("step", "reason", "hint"), OF_REGISTRIES, ids=lambda value: str(value)[:40])
def test_a_base_image_that_cannot_be_had_is_named_and_why(step: str | None, reason: str, hint: str) -> None:
    error = errors.image_build_failed("t:1", "Dockerfile", step, reason, "", "build.log")
    assert error.code is errors.Code.IMAGE_BUILD_FAILED
    assert (error.hint or "").startswith(BASE)
    assert hint in (error.hint or "")
    assert "build_runner_config: [docker:" not in (error.hint or "")


@pytest.mark.parametrize(
    "said",
    [
        "W: Failed to fetch http://example.org/x  Temporary failure resolving 'example.org'\nE: Unable to locate",
        "curl: (6) Could not resolve host: example.com",
        "wget: unable to resolve host address 'example.com'",
        "fatal: unable to access 'https://x/': Could not resolve host: x",
        "WARNING: fetching https://x: temporary error (try again later)",
        "Failed to establish a new connection: [Errno -3] Temporary failure in name resolution",
        "npm ERR! code EAI_AGAIN",
        "go: x: Get: dial tcp: lookup proxy.golang.org: no such host",
        "ssh: connect to host x port 22: Network is unreachable",
        "curl: (7) Failed to connect to example.com port 443 after 1 ms: Couldn't connect to server",
        "curl: (56) Received HTTP code 407 from proxy after CONNECT",
        "Err:1 http://example.org x InRelease\n  407  Proxy Authentication Required [IP: 192.0.2.1 3128]",
        "wget: bad address 'example.com'",
        "WARNING: fetching https://x: network error (check Internet connection and firewall)",
        "httpc request failed with: {:failed_connect, [{:to_address, {'x', 443}}, {:inet, [:inet], :nxdomain}]}",
        "Cannot prepare internal mirrorlist: Curl error (6): Couldn't resolve host name",
    ],
)
@pytest.mark.parametrize(
    "reason",
    [
        "The command '/bin/sh -c x' returned a non-zero code: 100",
        'process "/bin/sh -c x" did not complete successfully: exit code: 100',
    ],
)
def test_a_step_without_a_network_is_called_that(said: str, reason: str) -> None:
    error = errors.image_build_failed("t:1", "D", "Step 2/2 : RUN x", reason, "the last lines", "l", said=said)
    assert error.code is errors.Code.NO_NETWORK
    assert "/etc/docker/daemon.json" in (error.hint or "")


def test_a_syntax_line_that_cannot_be_fetched_is_named() -> None:
    reason = f"failed to resolve source metadata for docker.io/docker/dockerfile:1: {NO_HOST}"
    error = errors.image_build_failed("t:1", "D", None, reason, "", "l")
    assert "line `# syntax=`" in (error.hint or "")


def test_what_a_dockerfile_names_and_the_engine_cannot_reach_is_told() -> None:
    error = errors.image_build_failed("t:1", "D", "Step 2/2 : ADD https://x/y /y", f"failed to GET: {NO_HOST}", "", "l")
    assert "check its network and proxy" in (error.hint or "")
    assert "Mend" not in (error.hint or "")


def follow_podman(tmp_path: Path, *lines: str, error: str | None = None) -> tuple[list[bytes], str | None]:
    """What is shown of a build at Podman, which has each step in an event of its own, and the step to blame."""
    reporter = Mock()
    with BuildLog(tmp_path / "build.log", lambda _lines: None) as log:
        output = image_build._Output(log, reporter)
        events: list[dict[str, object]] = [{"stream": f"{line}\n"} for line in lines]
        if error is not None:
            events.append({"error": error})
        assert image_build._follow(iter(events), output, Mock(), own_steps=2) == error
    return [call.args[0] for call in reporter.log.call_args_list], output.failed_step


@pytest.mark.parametrize(
    ("total", "labels"),
    [
        (5, ['STEP 4/5: LABEL "nerves-docker-port.a"="b"', 'STEP 5/5: LABEL "nerves-docker-port.c"="d"']),  # 4.3
        (4, ['STEP 4/4: LABEL "nerves-docker-port.a"="b" "nerves-docker-port.c"="d"']),  # 5.4
    ],
)
def test_podman_s_steps_are_shown_without_our_labels(total: int, labels: list[str], tmp_path: Path) -> None:
    steps = [f"STEP 1/{total}: FROM base:1", f"STEP 2/{total}: COPY a /", "--> 1bd6", f"STEP 3/{total}: RUN make"]
    shown, _ = follow_podman(tmp_path, *steps, "STEP 9/9: what make prints", f"STEP 1/{total}: again", *labels)
    assert shown == [b">>> Step 1 : FROM base:1", b">>> Step 2 : COPY a /", b">>> Step 3 : RUN make"]


def test_podman_s_steps_name_their_stage(tmp_path: Path) -> None:
    lines = ["[1/3] STEP 1/2: FROM a AS one", "[1/3] STEP 2/2: RUN x", "[3/3] STEP 1/4: FROM b"]
    shown, blamed = follow_podman(tmp_path, *lines, "[3/3] STEP 2/4: COPY --from=one x /", error="no such file")
    assert shown == [
        b">>> [1/3] Step 1 : FROM a AS one",
        b">>> [1/3] Step 2 : RUN x",
        b">>> [3/3] Step 1 : FROM b",
        b">>> [3/3] Step 2 : COPY --from=one x /",
    ]
    assert blamed == "[3/3] Step 2 : COPY --from=one x /"
