"""Random terms are exchanged with a real Erlang in both directions; damaged terms are decoded with limited memory.

Every run uses the same terms: Hypothesis is derandomized, and all other seeds are constants.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nerves_docker_port.port import wire
from nerves_docker_port.port.wire import Atom, Opaque, Term, WireError, decode, encode
from support.erlang_peer import ErlangPeer
from support.hostile_frames import damaged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypothesis.strategies import SearchStrategy

PACKAGES = sorted((Path(__file__).parents[1] / "conformance" / "packages").glob("*.etf"))
HOSTILE_FRAMES = Path(__file__).parents[1] / "support" / "hostile_frames.py"
PYTHONPATH = str(Path(wire.__file__).parents[2])

TERMS_OF_PYTHON = 10_000
TERMS_OF_ERLANG = 15_000
DAMAGED = 100_000


@pytest.fixture(scope="module")
def erlang() -> Iterator[ErlangPeer]:
    with ErlangPeer() as peer:
        yield peer


def same(one: Term, other: Term) -> bool:
    """Whether the terms are equal and have the same types at every level.

    `==` is not strict enough, because 1 == 1.0 == True, and -0.0 == 0.0.
    """
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        keys = {key: key for key in other}
        return len(one) == len(other) and all(
            key in keys and same(key, keys[key]) and same(value, other[key]) for key, value in one.items()
        )
    return repr(one) == repr(other)


# Only a few atoms, because Erlang never removes an atom from its table. test_wire.py tests unusual atoms.
ATOMS = st.sampled_from(["", "a", "ok", "undefined", "Elixir.Nerves.Package", "mon_système", "😀", "x" * 255]).map(Atom)
NOT_TEXT = st.binary(max_size=30).map(lambda tail: b"\xff" + tail)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
BITSTRINGS = st.integers(0, 31).map(lambda high: Opaque(b"M\0\0\0\1\5" + bytes([high << 3])))
INTEGERS = st.integers() | st.sampled_from([2040, 2048, 9000]).flatmap(lambda bits: st.integers(-(2**bits), 2**bits))
SCALARS: SearchStrategy[Term] = st.one_of(
    st.none(),
    st.booleans(),
    INTEGERS,
    st.floats(allow_nan=False, allow_infinity=False),
    TEXT,
    NOT_TEXT,
    ATOMS,
    BITSTRINGS,
)
# A tuple as a key tests nested keys. (Keys that are equal in Python are already one key in a dict.)
KEYS: SearchStrategy[Term] = SCALARS | st.tuples(SCALARS, SCALARS)


def _containers(terms: SearchStrategy[Term]) -> SearchStrategy[Term]:
    return st.one_of(
        st.lists(terms, max_size=4),
        st.lists(terms, max_size=4).map(tuple),
        st.lists(st.integers(0, 255), max_size=20),  # Erlang encodes such a list as STRING_EXT
        st.dictionaries(KEYS, terms, max_size=4),
    )


TERMS = st.recursive(SCALARS, _containers, max_leaves=8)


def test_random_python_terms_survive_a_round_trip_through_erlang(erlang: ErlangPeer) -> None:
    batch = 20
    seen = 0

    @settings(
        max_examples=TERMS_OF_PYTHON // batch,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(TERMS, min_size=batch, max_size=batch))
    def round_trip(terms: list[Term]) -> None:
        nonlocal seen
        seen += len(terms)
        again = decode(erlang.echo(encode(list(terms))))
        assert same(again, list(terms))

    round_trip()
    assert seen >= TERMS_OF_PYTHON


def test_random_erlang_terms_survive_a_round_trip_through_python(erlang: ErlangPeer) -> None:
    batch = 250
    seen = 0
    for seed in range(TERMS_OF_ERLANG // batch):
        written = erlang.generate(seed, batch)
        terms = decode(written)
        assert isinstance(terms, list)
        erlang.assert_is_kept(encode(terms))
        seen += len(terms)
    assert seen >= TERMS_OF_ERLANG


def test_a_damaged_term_is_not_decoded_to_another_value_than_in_erlang(erlang: ErlangPeer) -> None:
    """A damaged term that both sides decode must have the same value.

    Python may accept a term that Erlang refuses, because it does not look into an opaque term such as a pid.
    """
    seeds = [path.read_bytes() for path in PACKAGES] + [erlang.generate(seed, 1) for seed in range(100)]
    understood = 0
    for data in damaged([seed for seed in seeds if len(seed) < 2000], count=20_000, seed=2):
        try:
            again = encode(decode(data))
        except WireError:
            continue
        understood += erlang.compare(data, again)
    assert understood > 1000


@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_terms_give_a_value_or_a_wire_error_within_bounded_memory(seed: int, tmp_path: Path) -> None:
    limit = 512 * 1024 * 1024
    limited = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2); "
    limited += "sys.argv = sys.argv[2:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    with ErlangPeer() as peer:
        varied = tmp_path / "varied.etf"
        varied.write_bytes(peer.generate(seed, 8))
    done = subprocess.run(
        [sys.executable, "-c", limited, str(limit), HOSTILE_FRAMES, str(DAMAGED // 2), str(seed), varied, *PACKAGES],
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert outcome["values"] + outcome["refused"] == DAMAGED // 2
    assert outcome["values"] > 1000
    assert outcome["refused"] > 1000
    assert outcome["peak_kib"] < 100 * 1024
    assert outcome["slowest"] < 30
