"""The tables' schemas: every column explains itself, and the rows that are written have exactly these columns."""

from __future__ import annotations

import pkgutil
from dataclasses import replace
from functools import cache

import pyarrow as pa
import pytest
from material import listing, material

import schemas
from pipeline import rows, score
from pipeline.decision_rows import decision_rows
from pipeline.decisions import FilterOptions, survey
from pipeline.doubts import DoubtOptions, Question, stretches
from pipeline.reviews import opinion_rows, review, review_rows
from pipeline.speakers import SpeakerOptions
from pipeline.types import Finished, Look, Outcome, Review, Span, Survey, Transcript
from schemas.clips import CLIPS
from schemas.decisions import DECISIONS
from schemas.examples import EXAMPLES
from schemas.opinions import OPINIONS
from schemas.origins import ORIGINS
from schemas.pairs import PAIRS
from schemas.people import PEOPLE
from schemas.recordings import RECORDINGS
from schemas.reviews import REVIEWS
from schemas.segments import SEGMENTS
from schemas.speakers import SPEAKERS
from schemas.words import WORDS

TABLES = {
    "recordings": RECORDINGS,
    "segments": SEGMENTS,
    "words": WORDS,
    "speakers": SPEAKERS,
    "decisions": DECISIONS,
    "opinions": OPINIONS,
    "reviews": REVIEWS,
}
OF_DATA_SETS = {"clips": CLIPS, "origins": ORIGINS, "pairs": PAIRS, "examples": EXAMPLES}
ALL = {**TABLES, "people": PEOPLE, **OF_DATA_SETS}
COLUMNS = [pytest.param(table, field, id=f"{table}.{field.name}") for table in ALL for field in ALL[table]]
STAMP = {"part": "p", "model": "m", "config_hash": "c", "run_id": "r"}
UNITS = {"1/s", "s", "Hz", "bytes", "nats", "dB", "LUFS"}
# The words that a column of a physical quantity is named by, and its unit.
QUANTITIES = {
    "start": "s",
    "end": "s",
    "start_s": "s",
    "end_s": "s",
    "duration_s": "s",
    "speech_s": "s",
    "turns": "s",
    "speechless": "s",
    "looked_s": "s",
    "heard_s": "s",
    "listened": "s",
    "omissions": "s",
    "omitted_s": "s",
    "size_bytes": "bytes",
    "sample_rate": "Hz",
    "snr_db": "dB",
    "avg_logprob": "nats",
    "evidence": "nats",
    "evidence_per_token": "nats",
    "kept_s": "s",
    "examples_s": "s",
    "seconds_per_letter": "s",
    "peak_db": "dB",
    "edge_db": "dB",
    "bandwidth_hz": "Hz",
    "loudness_lufs": "LUFS",
    "text_logprob": "nats",
    "characters_per_second": "1/s",
    "tokens_per_second": "1/s",
}


def finished() -> list[Finished]:
    """Return recordings of all kinds: ok, partial, failed, with and without words."""
    found = []
    for recording in listing(60):
        items = material(recording, seed=1)
        transcripts = [item for item in items if isinstance(item, Transcript)]
        (outcome,) = (item for item in items if isinstance(item, Outcome))
        found.append(score.finish(transcripts, outcome, SpeakerOptions(speakers=True)))
    assert {item.outcome.status for item in found} == {"ok", "partial", "failed"}
    return found


def surveys() -> list[Survey]:
    """Return the same recordings as a filter sees them."""
    found = []
    for item in finished():
        heard = Look(item.outcome.recording.id, 0, Span(0, 160), 80, 0.5, (("en", 0.9), ("de", 0.1)))
        found.append(survey([heard] if item.outcome.speech else [], item.outcome, FilterOptions()))
    return found


@cache
def reviews() -> list[Review]:
    """Return second opinions on the same recordings: of the first model itself, or none where it failed in between."""
    found = []
    for item in finished():
        recording, told = item.outcome.recording, rows.segment_rows([item]).to_pylist()
        asked = stretches(told, DoubtOptions(0.0), begin=recording.start, duration=item.outcome.duration)
        question = Question("run", None, item.outcome.duration, len(told), asked)
        answers = [
            Transcript(recording.id, number, one.span, (), tuple(s for _, s in item.segments), "en", None)
            for number, one in enumerate(asked)
        ]
        whole = item.outcome.status == "ok"
        outcome = replace(item.outcome, recording=replace(recording, asked=question.json()))
        found.append(review(answers if whole else [], outcome))
    return found


def written(table: str) -> pa.Table:
    """Return the rows that are written for `finished()`."""
    if table in ("opinions", "reviews"):
        return opinion_rows(reviews()) if table == "opinions" else review_rows(reviews(), **STAMP)
    if table == "decisions":
        return decision_rows(surveys(), **STAMP)
    if table == "recordings":
        return rows.recording_rows(finished(), **STAMP)
    make = {"segments": rows.segment_rows, "words": rows.word_rows, "speakers": rows.speaker_rows}[table]
    return make(finished())


def test_each_table_has_a_file() -> None:
    files = {module.name for module in pkgutil.iter_modules(schemas.__path__)}
    assert files == {*ALL, "column"}


@pytest.mark.parametrize(("table", "field"), COLUMNS)
def test_a_column_has_a_sentence(table: str, field: pa.Field) -> None:
    doc = field.metadata[b"doc"].decode()
    assert doc[0].isupper() or doc[0].isdigit() or doc.startswith(("ok;", "transcribe,", "ffmpeg's"))
    assert doc.endswith(".")
    assert "—" not in doc


@pytest.mark.parametrize(("table", "field"), COLUMNS)
def test_a_physical_quantity_has_its_unit(table: str, field: pa.Field) -> None:
    unit = field.metadata[b"unit"].decode()
    assert unit == QUANTITIES.get(field.name, "")
    if field.name.endswith("_s"):
        assert unit == "s"


def test_only_known_units_are_used() -> None:
    assert {field.metadata[b"unit"].decode() for schema in ALL.values() for field in schema} - {""} <= UNITS


@pytest.mark.parametrize("table", ALL)
def test_columns_have_different_names(table: str) -> None:
    assert len(set(ALL[table].names)) == len(ALL[table])


@pytest.mark.parametrize("table", TABLES)
def test_rows_have_exactly_the_columns_of_the_schema(table: str) -> None:
    made = written(table)
    assert made.num_rows
    assert made.schema.equals(TABLES[table], check_metadata=True)
    made.validate(full=True)


@pytest.mark.parametrize("table", TABLES)
def test_columns_that_cannot_be_null_are_not(table: str) -> None:
    made = written(table)
    assert [field.name for field in made.schema if not field.nullable and made[field.name].null_count] == []


@pytest.mark.parametrize("table", TABLES)
def test_no_rows_have_the_columns_too(table: str) -> None:
    empty = {
        "recordings": rows.recording_rows([], **STAMP),
        "segments": rows.segment_rows([]),
        "words": rows.word_rows([]),
        "speakers": rows.speaker_rows([]),
        "decisions": decision_rows([], **STAMP),
        "opinions": opinion_rows([]),
        "reviews": review_rows([], **STAMP),
    }[table]
    assert empty.num_rows == 0
    assert empty.schema.equals(TABLES[table], check_metadata=True)


def test_keys_of_the_rows_join() -> None:
    names = "recordings", "segments", "words", "speakers", "opinions", "reviews"
    recordings, segments, words, speakers, opinions, reviewed = (written(table).to_pylist() for table in names)
    ids = {row["recording_id"] for row in recordings}
    assert {row["recording_id"] for row in segments} <= ids
    keys = {(row["recording_id"], row["index"]) for row in segments}
    assert len(keys) == len(segments)
    assert {(row["recording_id"], row["segment"]) for row in words} <= keys
    assert {(row["recording_id"], row["index"]) for row in opinions} <= keys
    assert {row["recording_id"] for row in reviewed} == ids
    labels = {(row["recording_id"], row["speaker"]) for row in speakers}
    assert len(labels) == len(speakers)
    told = {(row["recording_id"], row["speaker"]) for row in [*segments, *words] if row["speaker"] is not None}
    assert told
    assert told <= labels
