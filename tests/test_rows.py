"""Rows: what crosses a hop comes back the same; the written tables have seconds."""

from __future__ import annotations

import io
import math
import random
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from material import listing, material

from pipeline import hops, rows, score
from pipeline.types import (
    SAMPLE_RATE,
    Failure,
    Finished,
    Media,
    Outcome,
    Passage,
    Recording,
    Span,
    Transcript,
)

NUMBERS = range(5)
STRANGE = ["", "a\nb", "'\"\\", "字é😀", " x ", "a\u0000b", '{"k": [1]}', "/tmp/with space.mp3"]


@pytest.fixture
def rng() -> random.Random:
    seed = random.randrange(2**32)
    sys.stdout.write(f"seed {seed}\n")  # pytest shows it where a test fails
    return random.Random(seed)


def recording(rng: random.Random) -> Recording:
    return Recording(
        id=rng.choice(STRANGE),
        uri=rng.choice(STRANGE),
        size=rng.choice([None, 0, 2**40]),
        version=rng.choice(STRANGE),
        language=rng.choice([None, "de"]),
        initial_prompt=rng.choice([None, "Ada,\n"]),
        metadata=rng.choice(STRANGE),
        address=rng.choice(["", "https://me:secret@host/a.mp3"]),
    )


def span(rng: random.Random) -> Span:
    start = rng.randrange(2**45)
    return Span(start, start + rng.randrange(2**33))


def outcome(rng: random.Random) -> Outcome:
    failure = Failure(rng.choice(STRANGE), rng.choice(STRANGE), rng.choice(STRANGE), rng.random() < 0.5)
    text, number = rng.choice([None, *STRANGE]), rng.choice([None, 1, 192_000])
    return Outcome(
        recording=recording(rng),
        passages=rng.randrange(10_000),
        duration=rng.randrange(2**50),
        speech=rng.randrange(2**50),
        speechless=tuple(span(rng) for _ in range(rng.randrange(4))),
        media=Media(text, text, number, number, number, rng.choice([None, 0.1, 1e9]), rng.choice(STRANGE)),
        failure=rng.choice([None, failure]),
    )


def passage(rng: random.Random) -> Passage:
    pcm = np.array([rng.randrange(-(2**15), 2**15) for _ in range(rng.choice([0, 1, 1000]))], np.int16)
    spans = tuple(span(rng) for _ in range(rng.randrange(4)))
    return Passage(
        rng.choice(STRANGE), rng.randrange(10_000), rng.randrange(2**45), pcm, spans, rng.choice([None, "en"])
    )


def shipped(table: pa.Table) -> pa.Table:
    """Return the table as another process gets it: in blocks."""
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as stream:
        stream.write_table(table, max_chunksize=3)
    return pa.ipc.open_stream(buffer.getvalue()).read_all()


def same(a: Passage | Outcome, b: Passage | Outcome) -> bool:
    """Say whether both are equal; a Passage is not compared by `==`, because of its array."""
    if isinstance(a, Outcome) or isinstance(b, Outcome):
        return a == b
    nothing = np.empty(0, np.int16)
    fields = [(p.recording_id, p.index, p.start, p.spans, p.language) for p in (a, b)]
    return fields[0] == fields[1] and a.pcm.dtype == b.pcm.dtype == nothing.dtype and np.array_equal(a.pcm, b.pcm)


# --- hops ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", NUMBERS)
def test_recordings_cross_a_hop(rng: random.Random, number: int) -> None:
    items = [recording(rng) for _ in range(20)]
    table = hops.recordings_table(items)
    assert table.schema == hops.RECORDING_HOP
    assert list(hops.read_recordings(shipped(table))) == items


@pytest.mark.parametrize("number", NUMBERS)
def test_passages_and_outcomes_cross_a_hop(rng: random.Random, number: int) -> None:
    items = [rng.choice([passage, outcome])(rng) for _ in range(20)]
    table = hops.passages_table(items)
    assert table.schema == hops.PASSAGE_HOP
    back = list(hops.read_passages(shipped(table)))
    assert len(back) == len(items)
    assert all(map(same, items, back))


@pytest.mark.parametrize("number", NUMBERS)
def test_transcripts_and_outcomes_cross_a_hop(rng: random.Random, number: int) -> None:
    items = [item for name in listing(10) for item in material(name, rng.randrange(2**32))]
    items += [outcome(rng) for _ in range(5)]
    rng.shuffle(items)
    table = hops.transcripts_table(items)
    assert table.schema == hops.TRANSCRIPT_HOP
    assert list(hops.read_transcripts(shipped(table))) == items


def test_empty_hops_keep_their_schemas() -> None:
    assert hops.recordings_table([]).schema == hops.RECORDING_HOP
    assert hops.passages_table([]).schema == hops.PASSAGE_HOP
    assert hops.transcripts_table([]).schema == hops.TRANSCRIPT_HOP
    assert list(hops.read_passages(hops.passages_table([]))) == []
    assert list(hops.read_transcripts(hops.transcripts_table([]))) == []


# --- tables -------------------------------------------------------------------------------------------------------


def finished(outcome: Outcome, *transcripts: Transcript) -> Finished:
    return score.finish(transcripts, outcome)


def test_times_are_written_in_seconds() -> None:
    items = material(listing(1)[0], seed=6)
    transcripts = [item for item in items if isinstance(item, Transcript)]
    (end,) = (item for item in items if isinstance(item, Outcome))
    whole = finished(replace(end, speechless=(Span(8_000, 24_000),)), *transcripts)
    (row,) = rows.recording_rows([whole], part="p", model="m", config_hash="c", run_id="r").to_pylist()
    assert row["duration_s"] == end.duration / 16_000
    assert row["speech_s"] == end.speech / 16_000
    assert row["speechless"] == [{"start": 0.5, "end": 1.5}]
    segments = [segment for _, segment in whole.segments]
    assert [(r["start"], r["end"]) for r in rows.segment_rows([whole]).to_pylist()] == [
        (segment.start / 16_000, segment.end / 16_000) for segment in segments
    ]
    words = [word for segment in segments for word in segment.words]
    assert words
    assert [(r["start"], r["end"]) for r in rows.word_rows([whole]).to_pylist()] == [
        (word.start / 16_000, word.end / 16_000) for word in words
    ]


def test_written_times_lose_no_sample() -> None:
    for sample in (1, 15_999, 16_001, 36 * 3600 * SAMPLE_RATE + 7):
        assert math.isclose(sample / SAMPLE_RATE * SAMPLE_RATE, sample, abs_tol=1e-3)


def test_a_failure_stands_in_its_row_and_nothing_else_does() -> None:
    name = listing(1)[0]
    failed = finished(Outcome(name, 0, 0, 0, failure=Failure("open", "not_found", "No such file", retryable=False)))
    (row,) = rows.recording_rows([failed], part="p", model="m", config_hash="c", run_id="r").to_pylist()
    assert (row["status"], row["error_stage"], row["error_kind"]) == ("failed", "open", "not_found")
    assert (row["error_message"], row["retryable"]) == ("No such file", False)
    assert (row["language"], row["segments"], row["selection"]) == (None, 0, None)


def test_a_recording_without_failure_has_no_error_columns() -> None:
    (row,) = rows.recording_rows(
        [finished(Outcome(listing(1)[0], 0, 16_000, 0))], part="p", model="m", config_hash="c", run_id="r"
    ).to_pylist()
    assert row["status"] == "ok"
    assert {row[name] for name in ("error_stage", "error_kind", "error_message", "retryable")} == {None}


def test_segments_are_counted_from_zero_over_the_passages_of_a_recording() -> None:
    items = material(listing(1)[0], seed=6)
    whole = finished(items[-1], *items[:-1])  # type: ignore[arg-type]
    table = rows.segment_rows([whole]).to_pylist()
    assert len({row["passage"] for row in table}) > 1
    assert [row["index"] for row in table] == list(range(len(table)))
    assert [row["text"] for row in table] == [segment.text for _, segment in whole.segments]


def test_a_recording_can_be_made_of_its_row() -> None:
    for recording in (
        Recording("1", "/a.mp3", 7, "v"),
        Recording(
            "2", "s3://b/x.tar#member=a.wav", None, "", address="s3://b/x.tar", inside="bytes=1+2", start=8, end=99
        ),
    ):
        closed = finished(Outcome(recording, 0, 0, 0))
        (row,) = rows.recording_rows([closed], part="p", model="m", config_hash="c", run_id="r").to_pylist()
        assert rows.recording_of(row) == recording


def test_times_of_a_stretch_are_those_of_its_file() -> None:
    recording = replace(listing(1)[0], start=160_000, end=16_000_000)
    items = material(recording, seed=6)
    transcripts = [item for item in items if isinstance(item, Transcript)]
    (end,) = (item for item in items if isinstance(item, Outcome))
    whole = finished(replace(end, speechless=(Span(8_000, 24_000),)), *transcripts)
    (row,) = rows.recording_rows([whole], part="p", model="m", config_hash="c", run_id="r").to_pylist()
    assert (row["start_s"], row["end_s"], row["duration_s"]) == (10.0, 1000.0, end.duration / 16_000)
    assert row["speechless"] == [{"start": 10.5, "end": 11.5}]
    segments = [segment for _, segment in whole.segments]
    assert [r["start"] for r in rows.segment_rows([whole]).to_pylist()] == [10 + s.start / 16_000 for s in segments]
    words = [word for segment in segments for word in segment.words]
    assert [r["end"] for r in rows.word_rows([whole]).to_pylist()] == [10 + word.end / 16_000 for word in words]
