"""Recordings as columns behave like a list of them, and the index finds what is there and nothing else."""

from __future__ import annotations

import random
from dataclasses import replace

import pyarrow as pa
import pytest
from material import listing

from pipeline.recordings import Index, Recordings
from pipeline.types import Recording


@pytest.fixture
def seed() -> int:
    seed = random.randrange(2**31)
    print("seed", seed)  # noqa: T201
    return seed


def test_recordings_are_a_sequence_of_what_was_put_in() -> None:
    given = [*listing(20_000), Recording("x", "/x", None, "", "de", "Names: Ada.", '{"a": "é"}')]
    found = Recordings.of(iter(given))
    assert found == given
    assert given == found
    assert len(found) == len(given)
    assert (found[0], found[-1], found[3:5]) == (given[0], given[-1], given[3:5])
    with pytest.raises(IndexError):
        found[len(given)]


def test_recordings_differ_from_others() -> None:
    given = listing(3)
    assert Recordings.of(given) != [*given[:2], replace(given[2], size=7)]
    assert Recordings.of(given) != given[:2]
    assert Recordings.of([]) == []


def test_of_a_recording_that_is_named_again_the_first_stays_in_its_place(seed: int) -> None:
    rng = random.Random(seed)
    names = [replace(rng.choice(listing(500)), metadata=str(number)) for number in range(1000)]
    first = {one.id: one for one in reversed(names)}
    assert list(Recordings.of(names).unique()) == sorted(first.values(), key=lambda one: int(one.metadata))


def test_recordings_that_differ_are_all_kept() -> None:
    assert Recordings.of(listing(100)).unique() == listing(100)
    assert Recordings.of([]).unique() == []


def test_a_language_is_forced_where_none_is_given() -> None:
    given = Recordings.of([Recording("a", "a", language="fr"), Recording("b", "b")])
    assert [one.language for one in given.in_language("de")] == ["fr", "de"]
    assert [one.language for one in given.in_language(None)] == ["fr", None]
    assert given.languages() == {"fr"}
    assert given.in_language("de").languages() == {"fr", "de"}


def test_index_finds_each_id_and_no_other(seed: int) -> None:
    ids = [f"{number:020x}" for number in random.Random(seed).sample(range(10**9), 20_000)]
    index = Index(pa.chunked_array([ids[:100], ids[100:]]))
    assert [index.get(id_) for id_ in ids] == list(range(len(ids)))
    assert index.get("no such id") is None
    assert Index(pa.chunked_array([], pa.string())).get("a") is None


def test_index_tells_ids_of_one_hash_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.recordings.hash", lambda _: 7, raising=False)
    index = Index(pa.chunked_array([["a", "b", "c"]]))
    assert [index.get(id_) for id_ in "abcd"] == [0, 1, 2, None]


def test_a_recording_costs_the_driver_little_beside_its_uri() -> None:
    recordings = Recordings.of(
        Recording(f"{number:020x}", "s3://b/" + "x" * 43, number, "y" * 32) for number in range(100_000)
    )
    assert recordings.table.nbytes / len(recordings) < 50 + 32 + 90
