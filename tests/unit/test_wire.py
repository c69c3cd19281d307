"""Frames and terms: reading, writing, and malformed input. Tests with random terms are in test_wire_properties.py."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from nerves_docker_port.port import wire
from nerves_docker_port.port.wire import Atom, FrameReader, Opaque, Term, WireError, decode, encode, write_frame
from support.erlang_peer import ErlangPeer

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGES = sorted((Path(__file__).parents[1] / "conformance" / "packages").glob("*.etf"))
PYTHONPATH = str(Path(wire.__file__).parents[2])
CANCEL_7 = bytes.fromhex("83 68 02 77 06 63 61 6e 63 65 6c 61 07")  # docs/protocol.md, *Example in bytes*


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


def a_list(count: int, elements: bytes) -> bytes:
    return b"\x83l" + u32(count) + elements + b"j"


@pytest.fixture(scope="module")
def erlang() -> Iterator[ErlangPeer]:
    with ErlangPeer() as peer:
        yield peer


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)
    with suppress(OSError):  # the test may have closed it already
        os.close(writing)


# --- Recorded packages of Nerves ---------------------------------------------------------------------------


def test_all_nine_recorded_packages_exist() -> None:
    assert len(PACKAGES) == 9


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.stem)
def test_a_recorded_package_is_equal_in_erlang_after_a_round_trip(path: Path, erlang: ErlangPeer) -> None:
    recorded = path.read_bytes()
    erlang.keep(recorded)
    erlang.assert_is_kept(encode(decode(recorded)))


@pytest.mark.parametrize("path", PACKAGES, ids=lambda path: path.stem)
def test_a_recorded_package_is_readable_in_python(path: Path) -> None:
    package = decode(path.read_bytes())
    assert isinstance(package, dict)
    assert package[Atom("__struct__")] == Atom("Elixir.Nerves.Package")


def test_every_recorded_package_is_identical_in_elixir_after_a_round_trip(tmp_path: Path) -> None:
    pairs: list[str] = []
    for path in PACKAGES:
        again = tmp_path / path.name
        again.write_bytes(encode(decode(path.read_bytes())))
        pairs += [str(path), str(again)]
    script = """
    for [before, after_] <- Enum.chunk_every(System.argv(), 2) do
      [a, b] = Enum.map([before, after_], &:erlang.binary_to_term(File.read!(&1)))
      IO.puts(a === b)
    end
    """
    done = subprocess.run(["elixir", "-e", script, "--", *pairs], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["true"] * len(PACKAGES)


def test_charlists_and_erlang_types_are_decoded_to_python_values() -> None:
    path = next(path for path in PACKAGES if path.stem == "charlists_and_erlang_types")
    package = decode(path.read_bytes())
    assert isinstance(package, dict)
    config = package[Atom("config")]
    assert isinstance(config, list)
    (platform_config,) = [value for key, value in config if key == Atom("platform_config")]  # type: ignore[misc, str-unpack]
    assert platform_config == [
        (Atom("defconfig"), [ord(character) for character in "nerves_defconfig"]),
        (
            Atom("extra"),
            (1.5, -3, 2**128, [], b"\x00\xff\x80", Atom("infinity"), None, True, {Atom("a"): [(Atom("b"), 1)]}),
        ),
    ]


# --- Values ------------------------------------------------------------------------------------------------


def test_the_example_of_the_protocol_page_is_correct() -> None:
    assert encode((Atom("cancel"), 7)) == CANCEL_7
    assert decode(CANCEL_7) == (Atom("cancel"), 7)


@pytest.mark.parametrize(
    "term",
    [
        None,
        True,
        False,
        Atom(""),
        Atom("undefined"),
        Atom("é"),
        Atom("x" * 255),
        Atom("😀" * 255),
        *(sign * (2**bits) + off for bits in (8, 31, 63, 64, 2039, 2040, 2048) for sign in (1, -1) for off in (-1, 0)),
        0,
        0.0,
        1.5,
        -1e300,
        5e-324,
        "",
        "täxt\0",
        b"\xff",
        [],
        [[]],
        [1, 2, 3],
        [256],
        (),
        tuple(range(255)),
        tuple(range(256)),
        {},
        {"a": 1, Atom("a"): 2, (1, "a"): 3, 2: {}},
    ],
    ids=lambda term: repr(term)[:30],
)
def test_a_value_and_its_type_survive_a_round_trip_through_erlang(term: Term, erlang: ErlangPeer) -> None:
    again = decode(erlang.echo(encode(term)))
    assert again == term
    assert type(again) is type(term)


def test_an_atom_and_a_string_are_different_keys() -> None:
    assert Atom("a") != "a"  # type: ignore[comparison-overlap]
    assert decode(encode({Atom("a"): 1, "a": 2})) == {Atom("a"): 1, "a": 2}


@pytest.mark.parametrize(
    ("etf", "value"),
    [
        (b"d\x00\x03abc", Atom("abc")),
        (b"s\x01\xe9", Atom("é")),
        (b"d\x00\x03nil", None),
        (b"s\x04true", True),
        (b"v\x00\x05false", False),
        (b"k\x00\x03abc", [97, 98, 99]),
        (b"k\x00\x00", []),
        (b"l\0\0\0\0j", []),
        (b"n\x01\x01\x05", -5),
        (b"n\x00\x00", 0),
        (b"o\0\0\0\x02\x01\x00\x01", -256),
    ],
)
def test_older_encodings_of_a_value_are_decoded(etf: bytes, value: Term) -> None:
    assert decode(b"\x83" + etf) == value


@pytest.mark.parametrize(
    "expression",
    [
        "self()",
        "make_ref()",
        "hd(erlang:ports())",
        "fun lists:map/2",
        "fun() -> 1 end",
        "<<5:3>>",
        "[a | b]",
        "[1, 2, [3 | 4] | 5]",
    ],
)
def test_a_term_without_a_python_value_is_returned_bit_for_bit(expression: str) -> None:
    etf = erlang_writes(expression)
    carried = decode(etf)
    assert carried == Opaque(etf[1:])
    assert encode(carried) == etf
    # The same term between two other elements.
    around = b"\x83h\x03a\x01" + etf[1:] + b"a\x02"
    assert decode(around) == (1, carried, 2)
    assert encode(decode(around)) == around


def erlang_writes(expression: str) -> bytes:
    code = f'file:write_file("/dev/stdout", term_to_binary({expression}, [{{minor_version, 2}}])), halt().'
    return subprocess.run(["erl", "-noinput", "-eval", code], capture_output=True, check=True).stdout


def test_opaque_terms_are_equal_if_their_bytes_are_equal() -> None:
    assert Opaque(b"M\0\0\0\1\3\xa0") == Opaque(b"M\0\0\0\1\3\xa0")
    assert Opaque(b"M\0\0\0\1\3\xa0") != Opaque(b"M\0\0\0\1\3\xc0")


def test_a_key_that_python_cannot_hash_is_opaque(erlang: ErlangPeer) -> None:
    etf = erlang_writes('#{"charlist" => 1, #{} => 2, {a, [b, #{c => d}]} => 3, [] => 4, {a, b} => "e"}')
    found = decode(etf)
    assert isinstance(found, dict)
    assert sorted(type(key).__name__ for key in found) == ["Opaque", "Opaque", "Opaque", "Opaque", "tuple"]
    assert found[Atom("a"), Atom("b")] == [ord("e")]
    erlang.keep(etf)
    erlang.assert_is_kept(encode(found))


@pytest.mark.parametrize(
    "expression",
    ["#{1 => a, 1.0 => b}", "#{true => a, 1 => b}", "#{0 => a, false => b}", "#{{x, 1} => a, {x, 1.0} => b}"],
)
def test_keys_that_are_equal_in_python_are_refused(expression: str) -> None:
    with pytest.raises(WireError, match="cannot tell apart"):
        decode(erlang_writes(expression))


def test_a_charlist_and_an_atom_with_the_same_hash_are_two_keys(erlang: ErlangPeer) -> None:
    """erlang_py raises AttributeError for these, because it hashes an atom as the bytes of its encoding."""
    etf = erlang_writes('#{foo => 1, "w\\003foo" => 2}')
    erlang.keep(etf)
    erlang.assert_is_kept(encode(decode(etf)))


# --- Values that cannot be encoded -------------------------------------------------------------------------

ITSELF: list[Term] = []
ITSELF += [ITSELF, ITSELF]


def nested(depth: int) -> Term:
    term: Term = 7
    for _ in range(depth):
        term = [term]
    return term


@pytest.mark.parametrize(
    "term",
    [
        float("nan"),
        float("-inf"),
        [float("inf")],
        "\ud800",
        ["\udcff"],
        {"\ud800": 1},
        Atom("\ud800"),
        Atom("x" * 256),
        Atom("x" * 70_000),
        Atom("nil"),
        Atom("true"),
        Atom("false"),
        {"a": 1, b"a": 2},
        {("a",): 1, (b"a",): 2},
        Opaque(b""),
        Opaque(b"P\0\0\0\x01x"),
        Opaque(b"a"),
        object(),
        bytearray(b"a"),
        {1, 2},
        1j,
        [Path("/")],
        ITSELF,
        nested(513),
        nested(100_000),
        b"x" * (16 * 1024 * 1024),
        1 << (8 * 17 * 1024 * 1024),
        [b"x" * (1024 * 1024)] * 16,
        [0] * 1_000_000,
    ],
    ids=lambda term: type(term).__name__,
)
def test_a_value_that_the_protocol_does_not_allow_is_not_encoded(term: Term) -> None:
    with pytest.raises(WireError):
        encode(term)


def test_the_limits_are_exact_in_both_directions() -> None:
    # The test compares the bytes, because `==` on such deep lists exceeds Python's recursion limit.
    terms: list[Term] = [b"\xff" * (16 * 1024 * 1024 - 6), nested(512), [0] * 999_999]
    for term in terms:
        assert encode(decode(encode(term))) == encode(term)


# --- Malformed input ---------------------------------------------------------------------------------------

COMPRESSED = bytes.fromhex("83 50 00 00 27 11 78 9c cb 66 60 18 05 23 1b 00 00 63 e4 0b f8")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "version", id="nothing"),
        pytest.param(b"\x83", "truncated", id="only a version"),
        pytest.param(b"\x82a\x01", "version", id="another version"),
        pytest.param(CANCEL_7[:-1], "truncated", id="truncated"),
        pytest.param(CANCEL_7 + b"\0", "after the end", id="trailing byte"),
        pytest.param(COMPRESSED, "compressed", id="compressed"),
        pytest.param(b"\x83h\x01" + COMPRESSED[1:], "compressed", id="compressed within"),
        pytest.param(b"\x83F\x7f\xf0\0\0\0\0\0\0", "infinite", id="infinity"),
        pytest.param(b"\x83F\xff\xf8\0\0\0\0\0\0", "infinite", id="not a number"),
        pytest.param(b"\x83c" + b"1.5".ljust(31, b"\0"), "tag 99", id="float as text"),
        pytest.param(b"\x83N\0", "tag 78", id="atom cache"),
        pytest.param(b"\x83y\0\0\0\0a\1", "tag 121", id="local"),
        pytest.param(b"\x83D\0", "tag 68", id="distribution header"),
        pytest.param(b"\x83w\x01\xff", "not UTF-8", id="atom not UTF-8"),
        pytest.param(b"\x83w\x03\xed\xa0\x80", "not UTF-8", id="surrogate in an atom"),
        pytest.param(b"\x83v\x01\x00" + b"x" * 256, "255 characters", id="long atom"),
        pytest.param(b"\x83X" + b"a\1" + b"\0" * 12, "atom must stand", id="pid without a node"),
        pytest.param(b"\x83X" + b"w\1n" + b"\0" * 11, "truncated", id="short pid"),
        pytest.param(b"\x83qw\1mw\1fw\1a", "arity", id="function without arity"),
        pytest.param(b"\x83p\0\0\0\0", "shorter", id="function of no size"),
        pytest.param(b"\x83p\xff\xff\xff\xff", "truncated", id="function of any size"),
        pytest.param(b"\x83M\0\0\0\1\x09\0", "bits", id="byte of nine bits"),
        pytest.param(b"\x83M\0\0\0\1\0\0", "bits", id="byte of no bits"),
        pytest.param(b"\x83n\x01\x02\x05", "sign", id="sign neither 0 nor 1"),
        pytest.param(b"\x83o\xff\xff\xff\xff\0", "truncated", id="integer of 4 GiB"),
        pytest.param(b"\x83m\xff\xff\xff\xff", "truncated", id="binary of 4 GiB"),
        pytest.param(b"\x83l\xff\xff\xff\xffa\1j", "truncated", id="list of 2^32-1"),
        pytest.param(b"\x83i\xff\xff\xff\xffa\1", "truncated", id="tuple of 2^32-1"),
        pytest.param(b"\x83t\xff\xff\xff\xffa\1a\1", "truncated", id="map of 2^32-1"),
        pytest.param(b"\x83t\0\0\0\2a\1a\1a\1a\2", "tell apart", id="key twice"),
        pytest.param(b"\x83" + b"l\0\0\0\1" * 513 + b"j" * 514, "deep", id="513 levels of lists"),
        pytest.param(b"\x83" + b"h\1" * 513 + b"a\1", "deep", id="513 levels of tuples"),
        pytest.param(b"\x83" + b"t\0\0\0\1" * 513 + b"a\1" * 514, "deep", id="513 levels of keys"),
        pytest.param(b"\x83" + b"h\1" * 512 + b"k\0\1a", "deep", id="513 levels, the last a charlist"),
        pytest.param(b"\x83" + b"l\0\0\0\1" * 100_000 + b"j" * 100_001, "deep", id="100,000 levels"),
        pytest.param(a_list(16_000_000, b"j" * 16_000_000), "1000000 terms", id="16,000,000 empty lists"),
        pytest.param(a_list(1_000_000, b"j" * 1_000_000), "1000000 terms", id="1,000,001 terms"),
        pytest.param(a_list(16, (b"k\xff\xff" + b"a" * 65535) * 16), "1000000 terms", id="charlists"),
        pytest.param(b"\x83" + b"h\xff" * 40_000, "deep|truncated", id="tuples of 255"),
        pytest.param(b"\x83m" + u32(2**24) + b"a" * 2**24, "16777216", id="more than 16 MiB"),
    ],
)
def test_hostile_input_is_refused_at_once(data: bytes, reason: str) -> None:
    began = time.process_time()
    with pytest.raises(WireError, match=reason):
        decode(data)
    assert time.process_time() - began < 5


def test_every_proper_prefix_of_a_package_is_refused() -> None:
    recorded = PACKAGES[0].read_bytes()
    for size in range(len(recorded)):
        with pytest.raises(WireError):
            decode(recorded[:size])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x83o" + u32(2**24 - 16) + b"\0" + b"\xfe" * (2**24 - 16), id="an integer of 16 MiB"),
        pytest.param(a_list(300, (b"o" + u32(50_000) + b"\0" + b"\xfe" * 50_000) * 300), id="300 large integers"),
        pytest.param(
            b"\x83" + b"l\0\0\0\1" * 500 + b"m" + u32(15 << 20) + b"a" * (15 << 20) + b"a\1" * 500,
            id="500 improper lists in one another",
        ),
        pytest.param(
            b"\x83" + b"t\0\0\0\1" * 500 + b"m" + u32(15 << 20) + b"a" * (15 << 20) + b"a\1" * 500,
            id="500 maps in one another's keys",
        ),
    ],
)
def test_a_large_valid_term_takes_linear_time(data: bytes) -> None:
    """Each of these takes minutes or longer if the code copies or multiplies more often than necessary."""
    began = time.process_time()
    assert encode(decode(data)) == data
    assert time.process_time() - began < 30


@pytest.mark.parametrize(
    "element",
    [b"j", b"m\0\0\0\x0aabcdefgh\xc4\x80", b"m\0\0\0\x0aabcdefgh\xff\xff", b"w\x02ab", b"qw\0w\0a\0", b"t\0\0\0\0"],
    ids=["empty", "text", "bytes", "atoms", "functions", "maps"],
)
def test_the_largest_term_that_is_allowed_fits_into_512_mib(element: bytes) -> None:
    """This needs Linux, which enforces RLIMIT_AS."""
    script = f"""
import resource
resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
from nerves_docker_port.port.wire import decode
count = 999_999
assert len(decode(b"\\x83l" + count.to_bytes(4, "big") + {element!r} * count + b"j")) == count
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
    )
    assert done.returncode == 0, done.stderr


# --- Frames ------------------------------------------------------------------------------------------------


def test_a_frame_is_written_as_its_length_and_its_bytes(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    write_frame(writing, CANCEL_7)
    assert os.read(reading, 100) == bytes.fromhex("00 00 00 0d") + CANCEL_7


def test_frames_are_read_one_by_one_up_to_the_end(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    for data in (b"one", b"", b"three"):
        write_frame(writing, data)
    os.close(writing)
    reader = FrameReader(reading)
    assert [reader.read_frame() for _ in range(4)] == [b"one", b"", b"three", None]
    assert reader.read_frame() is None


def test_nothing_beyond_the_frame_is_read(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.write(writing, b"\0\0\0\3oneREST")
    assert FrameReader(reading).read_frame() == b"one"
    assert os.read(reading, 100) == b"REST"


@pytest.mark.parametrize("sent", [b"\0", b"\0\0\0", b"\0\0\0\x05", b"\0\0\0\x05four"])
def test_the_end_of_file_within_a_frame_is_an_error(pipe: tuple[int, int], sent: bytes) -> None:
    reading, writing = pipe
    os.write(writing, sent)
    os.close(writing)
    with pytest.raises(WireError, match="end of file in the middle"):
        FrameReader(reading).read_frame()


@pytest.mark.parametrize("size", [2**24 + 1, 2**32 - 1])
def test_a_length_beyond_the_limit_is_refused_before_anything_is_read(pipe: tuple[int, int], size: int) -> None:
    reading, writing = pipe
    os.write(writing, u32(size))
    with pytest.raises(WireError, match="at most 16777216"):
        FrameReader(reading).read_frame()
    with pytest.raises(WireError, match="at most 16777216"):
        write_frame(writing, bytes(2**24 + 1))


def test_the_largest_frame_passes_through_a_pipe_in_pieces(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    data = os.urandom(1024) * (16 * 1024)
    writer = threading.Thread(target=write_frame, args=(writing, data))
    writer.start()
    assert FrameReader(reading).read_frame() == data
    writer.join()


def test_a_frame_that_arrives_byte_by_byte_during_signals_is_complete(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))

    def dribble() -> None:
        for byte in u32(len(CANCEL_7)) + CANCEL_7:
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(0.002)
            os.write(writing, bytes([byte]))

    writer = threading.Thread(target=dribble)
    writer.start()
    try:
        assert FrameReader(reading).read_frame() == CANCEL_7
    finally:
        writer.join()
        signal.signal(signal.SIGUSR1, before)
    assert heard


def test_writing_after_the_peer_has_closed_its_end_raises_broken_pipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        write_frame(writing, CANCEL_7)
    os.close(writing)


def test_a_term_survives_a_round_trip_through_a_port_opened_as_by_the_shim() -> None:
    echo = (
        "from nerves_docker_port.port.wire import FrameReader, decode, encode, write_frame\n"
        "reader = FrameReader(3)\n"
        "while (frame := reader.read_frame()) is not None:\n"
        "    write_frame(4, encode(decode(frame)))\n"
    )
    code = """
    [Python, Path, Script] = init:get_plain_arguments(),
    Port = open_port({spawn_executable, Python}, [{packet, 4}, binary, exit_status, nouse_stdio,
                                                  {env, [{"PYTHONPATH", Path}]}, {args, ["-c", Script]}]),
    Term = {request, 1, build, #{<<"grüße"/utf8>> => [nil, 1.5, "abc", <<255>>, self(), binary:copy(<<1>>, 1000000)]}},
    true = port_command(Port, term_to_binary(Term, [{minor_version, 2}])),
    receive
        {Port, {data, Term2}} -> Term = binary_to_term(Term2, [safe]), io:put_chars("the same"), halt(0)
    after 10000 -> halt(1)
    end.
    """
    done = subprocess.run(
        ["erl", "-noinput", "-eval", code, "-extra", sys.executable, PYTHONPATH, echo],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "the same"), done.stdout + done.stderr
