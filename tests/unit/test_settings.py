"""Every configuration key and variable: what it takes, what it does not, and what is said then."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from nerves_docker_port import errors
from nerves_docker_port.port import wire
from nerves_docker_port.port.wire import Atom, Term
from nerves_docker_port.request import settings
from nerves_docker_port.request.request import from_args
from nerves_docker_port.request.settings import HostMount, Settings
from support.requests import arguments, keyword

PACKAGES = Path(__file__).parent.parent / "conformance" / "packages"


def read(
    config: Term = None, variables: dict[str, str] | None = None, environ: dict[str, str] | None = None
) -> Settings:
    return settings.parse(
        settings.keys(config),
        variables or {},
        environ or {},
        app="my_system",
        package=Path("/p/my_system"),
        home=Path("/home/me"),
        download_dir=Path("/data/dl"),
    )


def refused(*args: Any) -> errors.RunnerError:
    with pytest.raises(errors.RunnerError) as caught:
        read(*args)
    assert caught.value.code is errors.Code.BAD_REQUEST
    return caught.value


def test_without_configuration_everything_is_as_the_stock_runner_does_it() -> None:
    assert read() == read([]) == read({}) == Settings()
    assert Settings() == Settings(ssh="dir", pull="missing", create_image="ask", ccache=None, cpus=None, memory=None)


@pytest.mark.parametrize(
    ("key", "value", "variable", "expected"),
    [
        ("env", keyword(A="1"), "A=1", {"A": "1"}),
        ("env", {"A": [49], Atom("B"): 2}, "A=1,B=2", {"A": "1", "B": "2"}),
        ("env", [("A", Atom("x")), ([66], "y,z=\n")], None, {"A": "x", "B": "y,z=\n"}),
        ("env", [("A", ""), ("B", 1.5)], "A=,B=1.5", {"A": "", "B": "1.5"}),
        ("env", "A=1,2\nB=x", "A=1,2\nB=x", {"A": "1,2", "B": "x"}),
        ("env", [], None, {}),
        ("pass_env", ["X", Atom("Y"), [90]], "X, Y,Z", {"X": "x", "Y": "y", "Z": "z"}),
        ("pass_env", [], None, {}),
        ("mounts", [("../a", "/a")], "../a:/a", (HostMount(Path("/p/a"), "/a", read_only=False),)),
        ("mounts", [("/b", "/b/./c/", Atom("ro"))], "/b:/b/c:ro", (HostMount(Path("/b"), "/b/c", read_only=True),)),
        (
            "mounts",
            [("~/b", [47, 98], Atom("rw"))],
            "~/b:/b:rw",
            (HostMount(Path("/home/me/b"), "/b", read_only=False),),
        ),
        (
            "mounts",
            [("/c", "/proc/cpuinfo")],
            "/c:/proc/cpuinfo",
            (HostMount(Path("/c"), "/proc/cpuinfo", read_only=False),),
        ),
        ("mounts", [("a:b", "/b")], None, (HostMount(Path("/p/my_system/a:b"), "/b", read_only=False),)),
        (
            "mounts",
            [("/a", "/nerves/env/other"), ("/b,c", "/b")],
            "/a:/nerves/env/other\n/b,c:/b",
            (
                HostMount(Path("/a"), "/nerves/env/other", read_only=False),
                HostMount(Path("/b,c"), "/b", read_only=False),
            ),
        ),
        ("ccache", True, "true", Path("/data/ccache")),
        ("ccache", "cc", "cc", Path("/p/my_system/cc")),
        ("ccache", "~/cc", "~/cc", Path("/home/me/cc")),
        ("ccache", False, "false", None),
        ("cpus", 8, "8", Decimal(8)),
        ("cpus", 1.5, "1.5", Decimal("1.5")),
        ("cpus", "2", " 2 ", Decimal(2)),
        ("memory", "24G", "24G", 24 * 1024**3),
        ("memory", [50, 52, 71], "24GiB", 24 * 1024**3),
        ("memory", 64 * 1024**2, "64m", 64 * 1024**2),
        ("memory", Atom("host"), "host", None),
        ("swap", "16G", "16G", 16 * 1024**3),
        ("swap", "0", "0", 0),
        ("swap", "0G", "none", 0),
        ("swap", "", None, 0),
        ("swap", Atom("none"), "0G", 0),
        ("network", "none", "none", "none"),
        ("network", Atom("host"), "host", "host"),
        ("network", "my-net_1", "my-net_1", "my-net_1"),
        ("ssh", Atom("dir"), "dir", "dir"),
        ("ssh", False, "false", None),
        ("pull", Atom("always"), "always", "always"),
        ("pull", "never", "never", "never"),
        ("create_image", Atom("never"), "never", "never"),
        ("create_image", Atom("always"), "always", "always"),
        ("workspace", Atom("copied"), "copied", "copied"),
        ("workspace", [109, 111, 117, 110, 116, 101, 100], "mounted", "mounted"),
        ("patience", 10, "10", 10),
        ("patience", "86400", " 86400 ", 86400),
        ("record_dir", "../record", "../record", Path("/p/record")),
        ("record_dir", [47, 114], "/r", Path("/r")),
        ("dns", ["10.0.0.1", [56, 46, 56, 46, 56, 46, 56]], "10.0.0.1,8.8.8.8", {"Dns": ["10.0.0.1", "8.8.8.8"]}),
        ("dns", "2001:db8::1", "2001:db8::1", {"Dns": ["2001:db8::1"]}),
        ("dns", [(10, 0, 0, 1), (0x2001, 0xDB8, 0, 0, 0, 0, 0, 1)], None, {"Dns": ["10.0.0.1", "2001:db8::1"]}),
        ("dns", (10, 0, 0, 1), None, {"Dns": ["10.0.0.1"]}),
        ("dns", [], None, {"Dns": []}),
        (
            "extra_hosts",
            ["a.b:10.0.0.2", "c=[::1]", "d:::1", "e:host-gateway"],
            "a.b:10.0.0.2, c=[::1], d:::1, e:host-gateway",
            {"ExtraHosts": ["a.b:10.0.0.2", "c:::1", "d:::1", "e:host-gateway"]},
        ),
        ("extra_hosts", keyword(a="10.0.0.2"), "a:10.0.0.2", {"ExtraHosts": ["a:10.0.0.2"]}),
        (
            "extra_hosts",
            {"a": (10, 0, 0, 2), Atom("b"): Atom("host-gateway")},
            None,
            {"ExtraHosts": ["a:10.0.0.2", "b:host-gateway"]},
        ),
    ],
)
def test_a_key_and_its_variable_give_the_same(key: str, value: Term, variable: str | None, expected: object) -> None:
    environ = {"X": "x", "Y": "y", "Z": "z"}
    field = {"pass_env": "env", "dns": "host_config", "extra_hosts": "host_config"}.get(key, key)
    assert getattr(read([(Atom(key), value)], {}, environ), field) == expected
    if variable is not None:
        assert getattr(read(None, {f"NERVES_DOCKER_{key.upper()}": variable}, environ), field) == expected


@pytest.mark.parametrize(
    ("key", "value", "variable", "allowed", "given"),
    [
        ("env", Atom("x"), "A", "a name and a value for each variable", "something"),
        ("env", [("A", None)], None, "a text or a number", "another value for A"),
        ("env", keyword(HOME="/x"), "HOME=/x", "any variable but those that the runner sets itself", "HOME"),
        ("env", [("A B", "x")], "A B=x", "names of variables without = or blanks", "'A B'"),
        ("pass_env", [1.5], None, "a list of the names of variables", "[1.5]"),
        ("pass_env", ["A=1"], "A=1", "names of variables without =", "'A=1'"),
        ("mounts", [("/a",)], "/a", "SOURCE:TARGET|{source, target}", "/a"),
        ("mounts", [("/a", "b")], "/a:b", "an absolute path as the target", "b"),
        ("mounts", [("/a", "/b", Atom("rx"))], "/a:/b:rx", "ro", "rx"),
        ("mounts", [("/a", "/nerves")], "/a:/nerves", "another target", "/nerves"),
        ("mounts", [("/a", "/nerves-docker-port")], "/a:/nerves-docker-port", "another target", "/nerves-docker-port"),
        (
            "mounts",
            [("/a", "/nerves/dl/x")],
            "/a:/nerves/dl/x",
            "another target: the container has something of its own",
            "/nerves/dl/x",
        ),
        (
            "mounts",
            [("/a", "//nerves/env/my_system")],
            "/a:/nerves/env/my_system",
            "something of its own at /nerves/env/my_system",
            "",
        ),
        *(
            ("mounts", [("/a", target)], f"/a:{target}", f"something of its own at {own}", target)
            for target, own in (
                ("/proc", "/proc"),
                ("/proc/sys/kernel", "/proc"),
                ("/dev/../proc/x", "/proc"),
                ("/sys", "/sys/fs/cgroup"),
                ("/dev", "/dev/null"),
                ("/bin", "/bin/bash"),
                ("/usr", "/usr/bin/env"),
                ("/etc", "/etc/passwd"),
                ("/etc/group", "/etc/group"),
                ("/lib", "/lib"),
                ("/usr/lib/", "/usr/lib"),
                ("/", "/nerves-docker-port"),
            )
        ),
        ("mounts", [("/a", "/b"), ("/c", "/b/")], "/a:/b,/c:/b/", "one mount for each target", "/b"),
        ("ccache", 7, None, "true, false, or the path of a directory", "7"),
        ("cpus", "many", "many", "a number of CPUs above 0", '"many"'),
        ("cpus", 0, "0", "a number of CPUs above 0", "0"),
        ("cpus", True, "nan", "a number of CPUs above 0", "nan|true"),
        ("memory", 24, "24", 'a size such as "24G"', "24"),
        ("memory", "24X", "24X", "6 MB at least", '"24X"'),
        ("memory", Atom("hosts"), "hosts", ":host", "hosts"),
        ("swap", "lots", "lots", '"0" or "none" for no swap', '"lots"'),
        ("swap", -1, "-1", "a size such as", "-1"),
        ("network", "a b", "a b", "the name of a network at the engine", '"a b"'),
        ("network", "container:x", "container:x", '"none", "host"', '"container:x"'),
        ("ssh", Atom("agnet"), "agnet", "dir or", "agnet"),
        ("ssh", True, "true", "agent or false", "true"),
        ("pull", Atom("alway"), "alway", "missing or", "alway"),
        ("create_image", True, "maybe", "ask or", "true|maybe"),
        ("workspace", Atom("mount"), "mount", "mounted or", "mount"),
        ("patience", 9, "9", "10 or more and at most 86400", "9"),
        ("patience", 86401, "86401", "a whole number of seconds", "86401"),
        ("patience", 60.5, "1m", "a whole number of seconds", "60.5|1m"),
        ("patience", True, "-60", "a whole number of seconds", "true|-60"),
        ("record_dir", True, None, "the path of a directory", "true"),
        ("dns", ["10.0.0.1", "ns.acme.test"], "10.0.0.1,ns.acme.test", "IP addresses", '"ns.acme.test"'),
        ("dns", ["fe80::1%eth0"], "fe80::1%eth0", "IP addresses", "%eth0"),
        ("dns", (10, 0, 1), "10.0.1", "IP addresses", "10"),
        ("dns", [(10, 0, 0, 256)], "10.0.0.256", "IP addresses", "256"),
        ("dns", Atom("none"), "none", "IP addresses", "none"),
        ("extra_hosts", ["a"], "a", "HOST:ADDRESS", '"a"'),
        ("extra_hosts", ["a:b"], "a:b", "host-gateway", '"a:b"'),
        ("extra_hosts", [":10.0.0.1"], ":10.0.0.1", "HOST:ADDRESS", '":10.0.0.1"'),
        ("extra_hosts", ["a b:10.0.0.1"], "a b:10.0.0.1", "HOST:ADDRESS", '"a b:10.0.0.1"'),
        ("extra_hosts", {"a\nb": "10.0.0.1"}, None, "HOST:ADDRESS", "10.0.0.1"),
        ("extra_hosts", 7, None, "HOST:ADDRESS", "7"),
    ],
)
def test_a_wrong_value_names_the_key_what_was_given_and_what_is_allowed(
    key: str, value: Term, variable: str | None, allowed: str, given: str
) -> None:
    def check(error: errors.RunnerError, where: str, example: str) -> None:
        before, _, after = error.message.partition("; given was ")
        assert before.startswith(where)
        assert any(part in before for part in allowed.split("|")), before
        assert any(part in after for part in given.split("|")), after
        assert error.hint is not None
        assert error.hint.startswith(f"For example: `{example}")

    check(refused([(Atom(key), value)]), f"build_runner_config: [{key}: ...] wants ", f"{key}: ")
    if variable is not None:
        name = f"NERVES_DOCKER_{key.upper()}"
        check(refused(None, {name: variable}), f"The variable {name} wants ", f"{name}=")


def host_config(term: Term) -> object:
    return read([(Atom("host_config"), term)]).host_config


def test_fields_of_the_engine_s_host_config_are_plain_json() -> None:
    """However an Elixir developer writes them: maps, keyword lists, charlists, atoms."""
    given: dict[Term, Term] = {
        "Dns": ["10.0.0.1"],
        "ExtraHosts": ["a:10.0.0.2"],
        "ShmSize": 2 * 1024**3,
        "Privileged": True,
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
        "DeviceRequests": [{"Capabilities": [["gpu"]], "Count": -1, "Options": None}],
        "Sysctls": {"net.core.somaxconn": "1024"},
        "SecurityOpt": [],
    }
    assert host_config(given) == given
    written: list[Term] = [
        (Atom("dns"), ["10.0.0.1"]),
        (Atom("extra_hosts"), keyword(a="10.0.0.2")),
        (Atom("shm_size"), "2G"),
        (Atom("Privileged"), True),
        (Atom("ulimits"), [keyword(Name=Atom("nofile"), Soft=1, Hard=2)]),
        (Atom("DeviceRequests"), {Atom("Capabilities"): [[[103, 112, 117]]], "Count": -1, "Options": None}),
        (Atom("sysctls"), {"net.core.somaxconn": 1024}),
        ("SecurityOpt", []),
        (Atom("Runtime"), None),
    ]
    assert host_config(written) == given
    assert host_config({"CapAdd": [78, 69, 84]}) == host_config({"CapAdd": Atom("NET")}) == {"CapAdd": ["NET"]}
    assert host_config({}) == host_config([]) == {}


def test_a_setting_of_its_own_goes_before_the_field_of_the_host_config() -> None:
    config = keyword(host_config={"Dns": ["10.0.0.1"], "ShmSize": 1, "ExtraHosts": ["a:10.0.0.1"]}, dns=["10.0.0.2"])
    found = read(config, {"NERVES_DOCKER_EXTRA_HOSTS": "b:10.0.0.2"}).host_config
    assert found == {"Dns": ["10.0.0.2"], "ShmSize": 1, "ExtraHosts": ["b:10.0.0.2"]}


@pytest.mark.parametrize("field", errors.HOST_CONFIG_OF_THE_RUNNER)
def test_what_the_runner_decides_itself_is_refused_by_name(field: str) -> None:
    """In every spelling that an engine would take for it."""
    for spelling in (field, field.lower(), field.upper(), "_".join(field)):
        error = refused(keyword(host_config={spelling: None}))
        assert error.message == (
            f"`{field}` in build_runner_config: [host_config: ...] cannot be set: the build runner decides it itself."
        )
        assert (error.hint or "").startswith(f"Leave `{field}` out. ")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (7, "wants a map of names and values; given was 7."),
        ([1.5], "wants a map of names and values; given was [1.5]"),
        ({"Dns": ["x"]}, "Dns in build_runner_config: [host_config: ...] wants IP addresses of DNS servers; given was"),
        ({"ExtraHosts": ["x"]}, 'wants HOST:ADDRESS, the address being an IP address or host-gateway; given was "x"'),
        ({"ShmSize": "lots"}, 'wants a size such as "2G", or a number of bytes; given was "lots"'),
        ({"Privileged": "yes"}, 'wants true or false; given was "yes"'),
        ({"CpuShares": 1.5}, "wants an integer; given was 1.5"),
        ({"CapAdd": [{}]}, "wants a text; given was %{}"),
        ({"CapAdd": Atom("x"), "CpusetCpus": 7}, "wants a text; given was 7"),
        ({"Ulimits": ["nofile=1"]}, "wants a list of maps; given was"),
        ({"Sysctls": ["a=b"]}, "wants a map of texts; given was"),
        ({"PortBindings": 1}, "wants a map; given was 1"),
        ({"Ulimits": [{"Name": (1, 2)}]}, "wants texts, numbers, booleans, lists and maps; given was {1, 2}"),
        (
            {"Tmpfs": {"scratch": ""}},
            'wants absolute paths in the container, and mount options for each; given was "sc',
        ),
        (
            {"Tmpfs": {"//nerves/dl/x/..": ""}},
            "another target: the container has something of its own at /nerves/dl; given",
        ),
        ({"ShmSiz": 1}, "`ShmSiz` in build_runner_config: [host_config: ...] is not known. Did you mean `ShmSize`?"),
    ],
)
def test_a_wrong_field_of_the_host_config_is_named(value: Term, message: str) -> None:
    error = refused(keyword(host_config=value))
    assert message in error.message
    assert error.hint


@pytest.mark.parametrize("key", settings.SETTINGS)
def test_the_example_of_an_error_is_right(key: str) -> None:
    """Whoever copies it gets on."""
    wrong: Term = wire.Opaque(b"")
    hint = refused([(Atom(key), wrong)]).hint or ""
    assert f"`{key}: " in hint
    name = f"NERVES_DOCKER_{key.upper()}"
    bad = {
        "ccache": "\0",
        "record_dir": "\0",
        "env": "x",
        "pass_env": "=",
        "network": "/",
        "mounts": "x",
        "dns": "x",
    }.get(key, "?")
    hint = refused(None, {name: bad}).hint or ""
    example = hint.removeprefix(f"For example: `{name}=").removesuffix("`.")
    read(None, {name: example}, {"SSH_AUTH_SOCK": "/s"})


def test_an_unknown_key_names_the_nearest() -> None:
    error = refused(keyword(memmory="24G"))
    assert error.message == "`memmory:` in build_runner_config is not known. Did you mean `memory:`?"
    assert error.hint is not None
    for key in settings.KEYS:
        assert f"{key}:" in error.hint
    assert "Did you mean" not in refused(keyword(xyzzy=1)).message
    assert "keyword list" in refused([1]).message
    assert "keyword list" in refused(Atom("x")).message


def test_an_unknown_variable_names_the_nearest() -> None:
    error = refused(None, {"NERVES_DOCKER_CPU": "2"})
    assert error.message == "`NERVES_DOCKER_CPU` in the environment is not known. Did you mean `NERVES_DOCKER_CPUS`?"
    assert "NERVES_DOCKER_CREATE_IMAGE" in (error.hint or "")
    assert "`NERVES_DOCKER_CPUS`?" in refused(None, {"NERVES_DOCKER_PORT_CPUS": "2"}).message


def test_variables_of_others_are_left_alone() -> None:
    assert read(None, {"NERVES_DOCKER_PORT_COMMAND": "x", "TERM": "vt100", "NERVES_DEBUG": "1"}) == Settings()


def test_an_empty_variable_is_as_if_it_were_not_set() -> None:
    assert read(keyword(cpus=2), {"NERVES_DOCKER_CPUS": "", "NERVES_DOCKER_SWAP": " "}).cpus == 2


def test_a_variable_overrides_its_key_even_a_wrong_one() -> None:
    config = keyword(cpus=2, env=keyword(A="1"), memory="wrong")
    found = read(config, {"NERVES_DOCKER_CPUS": "3", "NERVES_DOCKER_ENV": "B=2", "NERVES_DOCKER_MEMORY": "1G"})
    assert (found.cpus, found.env, found.memory) == (Decimal(3), {"B": "2"}, 1024**3)


def test_env_goes_before_what_is_passed_on_and_what_is_not_set_is_not_passed() -> None:
    config = keyword(env=keyword(A="mine"), pass_env=["A", "B", "C"])
    assert read(config, {}, {"A": "theirs", "B": "b"}).env == {"A": "mine", "B": "b"}


def test_nil_is_as_if_the_key_were_not_there_and_the_first_of_a_key_counts() -> None:
    assert read([(Atom("cpus"), None), (Atom("pull"), Atom("never")), (Atom("pull"), Atom("always"))]) == Settings(
        pull="never"
    )


def test_the_agent_s_socket_comes_from_the_environment() -> None:
    config = keyword(ssh=Atom("agent"))
    found = read(config, {}, {"SSH_AUTH_SOCK": "/run/agent.sock"})
    assert (found.ssh, found.ssh_agent) == ("agent", Path("/run/agent.sock"))
    assert refused(config).message == (
        "build_runner_config: [ssh: ...] wants the ssh agent, but SSH_AUTH_SOCK is not set."
    )
    assert read(None, {}, {"SSH_AUTH_SOCK": "/run/agent.sock"}).ssh_agent is None


@pytest.mark.parametrize(
    "pair", [("env", [("A", {"s3cret": 1})]), ("env", "A=1,s3cret"), ("env", ("A", "s3cret"))], ids=str
)
def test_what_may_be_a_secret_is_never_shown(pair: tuple[str, Term]) -> None:
    error = refused([(Atom(pair[0]), pair[1])])
    assert "s3cret" not in error.message + (error.hint or "")
    assert "s3cret" not in repr(read(keyword(env=keyword(A="s3cret"), pass_env=["B"]), {}, {"B": "s3cret"}))


def test_the_keys_of_the_apple_runner_are_accepted_and_mean_the_same() -> None:
    """A package with `container:`, `cpus:`, `memory:` and `volume_size:`, as recorded from Nerves."""
    package = wire.decode((PACKAGES / "container_config.etf").read_bytes())
    args = arguments(Path("/p")) | {Atom("package"): package}
    request = from_args(args, {})
    assert (request.settings.cpus, request.settings.memory) == (Decimal(8), 24 * 1024**3)
    assert request.image.tag == "acme/my_system:0.1.0"
    assert request.image.dockerfile == Path("/home/dev/my_system/support/Dockerfile")


def test_a_request_s_variables_reach_the_settings() -> None:
    args = arguments(Path("/p"), env={"NERVES_DOCKER_CPUS": "3"}, runner_config=keyword(pass_env=["A"]))
    request = from_args(args, {"A": "1", "NERVES_DOCKER_CPUS": "4"})
    assert (request.settings.cpus, request.settings.env) == (Decimal(3), {"A": "1"})
