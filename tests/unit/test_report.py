"""The report: what it makes of a journal, as text, as JSON and as a list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nerves_docker_port import errors
from nerves_docker_port.port.wire import Atom, Term
from nerves_docker_port.record import journal, report, times
from nerves_docker_port.record.journal import PackageStep
from nerves_docker_port.request.report import ReportRequest, from_args
from support import builds


def package(name: str, began: float, seconds: float, step: str = "build") -> PackageStep:
    return PackageStep(name, step, float(began), float(began + seconds))


def text(where: Path, **wanted: object) -> str:
    return report.report(ReportRequest(where, **wanted))  # type: ignore[arg-type]


def test_the_times_are_those_of_build_time_log(tmp_path: Path) -> None:
    path = builds.write(tmp_path, builds.steps_of(builds.HOSTTOOLS))
    found = report.times_of(path)
    assert found is not None
    gperf = next(each for each in found.packages if each.name == "host-gperf")
    # configure from 1795562890.441572594 to 1795562900.078409914
    assert gperf.steps["configure"] == pytest.approx(9.637, abs=0.001)
    assert gperf.seconds == pytest.approx(sum(gperf.steps.values()))
    assert found.measured
    assert found.at_once == pytest.approx(1.0, abs=0.01)
    assert sum(found.steps.values()) == pytest.approx(sum(each.seconds for each in found.packages))


def test_without_build_time_log_the_headlines_tell_the_times(tmp_path: Path) -> None:
    path = builds.write(tmp_path, began=100.0)
    whole = journal.read(path)
    assert whole is not None
    lines = [
        (110.0, ">>> zlib 1.3 Downloading"),
        (112.0, ">>> zlib 1.3 Building"),
        (113.0, ">>> zlib 1.3 Patching libtool"),
        (120.0, ">>> zlib 1.3 Installing to target"),
        (121.0, ">>> busybox 1.36 Building"),
        (131.0, ">>>   Finalizing target directory"),
    ]
    build = journal.Build(**{**vars(whole), "headlines": tuple(lines), "last_at": 140.0})
    found = times.of(build)
    assert not found.measured
    assert [(each.package, each.step, each.began, each.seconds) for each in found.spans] == [
        ("zlib", "download", 10.0, 2.0),
        ("zlib", "build", 12.0, 8.0),
        ("zlib", "install-target", 20.0, 1.0),
        ("busybox", "build", 21.0, 10.0),
    ]
    assert [(each.name, each.version) for each in found.packages] == [("zlib", "1.3"), ("busybox", "1.36")]
    assert "those of its headlines" in report.to_text(found)


def test_the_engines_clock_is_brought_to_the_one_of_mix(tmp_path: Path) -> None:
    found = report.times_of(builds.write(tmp_path, [package("zlib", 1100, 5)], journal.Clock(90.0), began=1000.0))
    assert found is not None
    assert [span.began for span in found.spans] == [10.0]


def test_packages_at_once_are_counted(tmp_path: Path) -> None:
    steps = [package("a", 1000, 10), package("b", 1000, 10), package("c", 1005, 5), package("d", 1050, 5)]
    found = report.times_of(builds.write(tmp_path, steps))
    assert found is not None
    assert found.at_once == pytest.approx(30 / 15)
    assert "2.0 at once on average" in report.to_text(found)


def test_a_build_is_compared_with_the_one_before_that_built_something(tmp_path: Path) -> None:
    steps = [package("a", 1000, 10), package("b", 1010, 60), package("same", 1070, 5), package("gone", 1080, 1)]
    before = builds.write(tmp_path, steps, build_id="aaa")
    builds.write(tmp_path, build_id="bbb", began=1500.0)
    builds.write(tmp_path, steps, build_id="ccc", package="other_system", began=1600.0)
    steps = [package("a", 2000, 20), package("b", 2010, 30), package("same", 2070, 5.3), package("new", 2080, 9)]
    path = builds.write(tmp_path, steps, build_id="ddd")
    found = report.times_of(path)
    assert found is not None
    compared = found.comparison
    assert compared is not None
    assert compared.before.path == before
    assert (compared.new, compared.gone) == (("new",), ("gone",))
    assert [each.package for each in compared.slower] == ["a"]
    assert [each.package for each in compared.faster] == ["b"]
    said = text(tmp_path)
    assert "  a  10 s -> 20 s (+100 %)" in said
    assert "  b  1 min 0 s -> 30 s (-50 %)" in said


def test_a_build_that_went_on_says_what_the_configuration_has_that_is_new_or_gone(tmp_path: Path) -> None:
    before = journal.Configuration("1", ("a", "b", "c"), ())
    now = journal.Configuration("2", ("a", "b", "d"), ("a", "b"))
    builds.write(tmp_path, [package(name, 1000, 5) for name in "abc"], before, build_id="aaa")
    found = report.times_of(builds.write(tmp_path, [package("d", 2000, 5)], now, build_id="bbb"))
    assert found is not None
    assert found.comparison is not None
    assert (found.comparison.new, found.comparison.gone) == (("d",), ("c",))


def test_a_package_that_was_only_built_in_part_is_not_called_faster(tmp_path: Path) -> None:
    whole = [package("a", 1000, 30, "configure"), package("a", 1030, 60), package("b", 1100, 60)]
    builds.write(tmp_path, whole, build_id="aaa")
    parts = [package("a", 2000, 10), PackageStep("b", "build", 2010.0, None)]
    found = report.times_of(builds.write(tmp_path, parts, build_id="bbb"))
    assert found is not None
    assert found.comparison is not None
    assert found.comparison.faster == ()
    assert report.NO_CHANGE in report.to_text(found)


def test_the_text_begins_with_what_happened_and_why(tmp_path: Path) -> None:
    cause = journal.Cause("zlib", "Building", "compile-c", ("zlib.c:7:1: error: expected ;",), "Mend it.")
    steps = [package("busybox", 1000, 60), PackageStep("zlib", "build", 1060.0, None)]
    more: list[journal.Record] = [
        cause,
        journal.Engine("unix:///run/docker.sock", "20.10.24", "x86_64", 8, 16 << 30),
        journal.Image("my_system:1", "sha256:abc", None),
        journal.Ccache(75, 25),
    ]
    builds.write(tmp_path, steps, *more, outcome="step_failed")
    lines = text(tmp_path).splitlines()
    assert lines[0] == "my_system 0.1.0: failed (step_failed) after 1 min 15 s"
    assert lines[2].startswith("zlib failed in the step Building: ")
    assert "    zlib.c:7:1: error: expected ;" in lines
    assert "Engine          20.10.24 at unix:///run/docker.sock (x86_64, 8 CPUs, 16 GB)" in lines
    assert "Compiler cache  75 % hits (75 of 100)" in lines


def test_the_slowest_packages_stand_first(tmp_path: Path) -> None:
    builds.write(tmp_path, builds.large(100, 2))
    lines = text(tmp_path).splitlines()
    begin = next(index for index, line in enumerate(lines) if line.startswith("Time by package (the slowest 15 of 100"))
    seconds = [float(line.split()[1]) for line in lines[begin + 2 : begin + 17]]
    assert seconds == sorted(seconds, reverse=True)
    assert all(len(line) <= 100 for line in lines)


def test_a_report_of_nothing_but_the_beginning_is_one(tmp_path: Path) -> None:
    builds.write(tmp_path, outcome=None)
    assert text(tmp_path).startswith("my_system 0.1.0: killed after ")
    assert json.loads(text(tmp_path, as_json=True))["outcome"] == "killed"


def test_no_text_of_a_log_reaches_the_terminal_as_a_control_character(tmp_path: Path) -> None:
    evil = "\x1b]0;title\x07\x1b[2J\x08"
    cause = journal.Cause(evil, evil, "compile-c", (evil,), evil)
    steps = [package(f"a{evil}", 1000, 60, f"b{evil}")]
    builds.write(tmp_path, steps, cause, journal.Warned(evil), outcome="step_failed", build_id="aaa")
    for said in (text(tmp_path), text(tmp_path, only_list=True), text(tmp_path, as_json=True)):
        assert not any(ord(character) < 32 and character != "\n" for character in said)


def test_json_has_all_packages_and_their_steps(tmp_path: Path) -> None:
    builds.write(tmp_path, builds.large(200, 4), journal.Artifact("/dl/a.tar.gz", 5, "abc"))
    value = json.loads(text(tmp_path, as_json=True))
    assert len(value["packages"]) == 200
    assert set(value["packages"][0]["steps"]) == set(builds.STEPS)
    assert value["artifact"] == {"path": "/dl/a.tar.gz", "size": 5, "sha256": "abc"}
    assert value["compared"] is None
    assert value["cause"] is None


def test_the_list_has_the_latest_first_and_a_build_is_chosen_by_its_id(tmp_path: Path) -> None:
    builds.write(tmp_path, [package("a", 1000, 5)], build_id="aaa1")
    builds.write(tmp_path, [package("b", 2000, 5)], build_id="bbb2", outcome="cancelled")
    builds.write(tmp_path, build_id="ccc3", began=3000.0, flow="archive")
    builds.write(tmp_path, build_id="ddd4", began=4000.0, flow="shell")
    rows = text(tmp_path, only_list=True).splitlines()
    assert [row.split()[0] for row in rows] == ["BUILD", "ccc3", "bbb2", "aaa1"]
    assert rows[1].endswith("my_system: archive: ok")
    assert rows[2].endswith("my_system: cancelled")
    listed = json.loads(text(tmp_path, only_list=True, as_json=True))
    assert [each["id"] for each in listed] == ["ccc3", "bbb2", "aaa1"]
    assert "0.1.0: cancelled after" in text(tmp_path)
    assert json.loads(text(tmp_path, build="aaa", as_json=True))["id"] == "aaa1"
    with pytest.raises(errors.RunnerError, match="No build has an id that begins with eee"):
        text(tmp_path, build="eee")


def test_the_journals_of_a_package_are_found_from_its_directory(tmp_path: Path) -> None:
    path = builds.write(tmp_path / "my_system" / ".nerves" / "artifacts" / "my_system-portable-0.1.0" / "journal")
    for where in (path, *list(path.parents)[:5]):
        assert text(where).startswith("my_system 0.1.0: built")
    for nothing in (tmp_path / "none", tmp_path):
        with pytest.raises(errors.RunnerError, match="No journal of a build is in"):
            text(nothing)


def test_the_page_is_written_where_it_was_asked_for(tmp_path: Path) -> None:
    builds.write(tmp_path / "j")
    page = tmp_path / "page.html"
    assert text(tmp_path / "j", html=page).endswith(f"The page is {page}.")
    assert page.read_text().startswith("<!doctype html>")
    with pytest.raises(errors.RunnerError, match="The page"):
        text(tmp_path / "j", html=tmp_path / "none" / "page.html")


def test_the_command_ends_with_1_where_there_is_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("nerves_docker_port: No journal of a build is in")
    builds.write(tmp_path)
    assert report.main([str(tmp_path), "--list"]) == 0
    assert "0123456789ab" in capsys.readouterr().out


def test_the_arguments_of_a_request_say_where_to_look_and_what_to_write() -> None:
    args: dict[Term, Term] = {Atom("package"): None, Atom("cwd"): "/p"}
    assert from_args(args) == ReportRequest(Path("/p"))
    args[Atom("names")] = {Atom("build_path"): "/p/.nerves/artifacts/a"}
    assert from_args(args) == ReportRequest(Path("/p/.nerves/artifacts"))
    more: dict[Term, Term] = {Atom("where"): "record", Atom("html"): "r.html", Atom("json"): True, Atom("build"): "ab"}
    assert from_args({**args, **more}) == ReportRequest(Path("/p/record"), "ab", Path("/p/r.html"), as_json=True)
    assert from_args({**args, Atom("html"): "/r.html", Atom("list"): True}).html == Path("/r.html")
    with pytest.raises(errors.RunnerError, match="`build` of the request is not a text"):
        from_args({**args, Atom("build"): 7})
