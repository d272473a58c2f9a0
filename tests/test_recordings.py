"""Recordings as columns behave like a list of them, and the index finds what is there and nothing else."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from material import listing

from pipeline.recordings import Index, Recordings
from pipeline.types import Recording


@pytest.fixture(params=["in memory", "on disk"], autouse=True)
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "on disk":
        monkeypatch.setattr("pipeline.spool._IN_MEMORY", 0)
        monkeypatch.setattr("pipeline.spool._TOGETHER", 50)
    return str(request.param)


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


def test_what_is_chosen_is_what_a_list_would_choose(seed: int) -> None:
    rng = random.Random(seed)
    given = [replace(one, language=rng.choice([None, "fr"])) for one in listing(500)]
    found = Recordings.of(given).in_language("de")
    for _ in range(5):
        given = [replace(one, language=one.language or "de") for one in given]
        places = rng.choices(range(len(given)), k=300)
        given, found = [given[place] for place in places], found.take(np.array(places))
        kept = [rng.random() < 0.8 for _ in given]
        given, found = [one for one, keep in zip(given, kept, strict=True) if keep], found.where(np.array(kept))
        assert found == given
        assert found[3:-3] == given[3:-3]
        assert sorted(found.shuffled(), key=given.index) == sorted(given, key=given.index)
        assert list(found.sizes()) == [one.size for one in given]
        assert list(found.ids()) == [one.id for one in given]
        assert list(found.among({given[0].id})) == [one.id == given[0].id for one in given]


def test_index_finds_each_id_and_no_other(seed: int) -> None:
    given = listing(20_000)
    random.Random(seed).shuffle(given)
    index, ids = Index(Recordings.of(given)), [one.id for one in given]
    assert [index.get(id_) for id_ in ids] == list(range(len(ids)))
    assert list(index.find(["no such id", *ids])) == [-1, *range(len(ids))]
    assert index.get("no such id") is None
    nothing = Index(Recordings.of([]))
    assert nothing.get("a") is None
    assert list(nothing.find(["a"])) == [-1]


def test_ids_of_one_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.recordings.hash", lambda _: 7, raising=False)
    recordings = Recordings.of(Recording(id_, f"/{id_}", number) for number, id_ in enumerate("abacbcd"))
    assert [one.size for one in recordings.unique()] == [0, 1, 3, 6]
    index = Index(recordings.unique())
    assert [index.get(id_) for id_ in "abcde"] == [0, 1, 2, 3, None]
    assert list(index.find("edcba")) == [-1, 3, 2, 1, 0]


def test_a_recording_costs_the_driver_little_beside_its_uri() -> None:
    recordings = Recordings.of(
        Recording(f"{number:020x}", "s3://b/" + "x" * 43, number, "y" * 32) for number in range(100_000)
    )
    assert recordings.table().nbytes / len(recordings) < 50 + 32 + 90
