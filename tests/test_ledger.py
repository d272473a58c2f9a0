"""The ledger: what is done, what is to do, what is replaced, what is refused. `test_accounting.py` kills it."""

from __future__ import annotations

import itertools
import resource
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from material import CONFIG, listing, material
from s3_server import s3_server
from tables import assert_same_tables, assert_whole, read_runs, read_table

from pipeline.errors import UserError
from pipeline.ledger import Ledger, LedgerOptions, config_hash
from pipeline.types import SAMPLE_RATE, Attempt, Failure, Outcome, Recording, Segment, Span, Transcript, Word

SECOND = SAMPLE_RATE
RECORDING = Recording("aa", "/a.mp3", 7, "1")
EAGER = LedgerOptions(flush_s=0.0, flush_share=0.0, flush_load=1e9)  # a commit with every hand-over
PASSING = Failure("open", "unavailable", "503", retryable=True)
LASTING = Failure("decode", "broken", "moov atom not found")


def segment(start: int, end: int, text: str, *words: Word) -> Segment:
    """Return a segment; times in samples."""
    attempts = (Attempt(0.0, -0.2, 1.1),)
    return Segment(
        start, end, text, "en", 0.9, "transcribe", -0.2, 1.1, 0.1, 0.0, attempts, speech_ratio=1.0, words=words
    )


def transcript(index: int, start_s: int, end_s: int, text: str = "Hello.", id_: str = "aa", *words: Word) -> Transcript:
    """Return the transcript of a passage that is one segment."""
    span = Span(start_s * SECOND, end_s * SECOND)
    return Transcript(id_, index, span, (span,), (segment(span.start, span.end, text, *words),), "en", 0.9)


def outcome(
    passages: int, duration_s: int, failure: Failure | None = None, recording: Recording = RECORDING
) -> Outcome:
    """Return the outcome of a recording that is all speech."""
    return Outcome(recording, passages, duration_s * SECOND, duration_s * SECOND, failure=failure)


def opened(out: Path | str, **options: Any) -> Ledger:
    """Open the ledger that all these tests write."""
    return Ledger.open(str(out), CONFIG, model="base", **options)


def run(out: Path | str, items: Iterable[Transcript | Outcome], *recordings: Recording, **options: Any) -> None:
    """Run a job that receives `items`; its recordings are RECORDING unless named."""
    with opened(out, **options) as ledger:
        ledger.todo(recordings or [RECORDING])
        ledger.receive(items)


def texts(out: Path | str) -> list[str]:
    """Return the texts of all segments, in order."""
    rows = sorted(read_table(str(out), "segments"), key=lambda row: (row["recording_id"], row["index"]))
    return [row["text"] for row in rows]


def only(out: Path | str) -> dict[str, Any]:
    """Return the row of the only recording."""
    (row,) = read_table(str(out), "recordings")
    return row


def contents(out: Path) -> dict[str, bytes]:
    """Return all files under `out`."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


# --- what is to do ------------------------------------------------------------------------------------------------


def test_all_is_to_do_at_first_each_once_in_order(tmp_path: Path) -> None:
    names = listing(5)
    with opened(tmp_path) as ledger:
        assert ledger.todo([names[3], *names]) == [names[3], *names[:3], names[4]]
        assert ledger.missing() == [names[3], *names[:3], names[4]]
        assert ledger.done == 0


def test_what_is_done_is_not_to_do_and_nothing_is_written(tmp_path: Path) -> None:
    run(tmp_path, [transcript(0, 0, 3), outcome(1, 3)])
    before = contents(tmp_path)
    with opened(tmp_path) as ledger:
        assert ledger.todo([RECORDING]) == []
        assert ledger.done == 1
    assert contents(tmp_path) == before


def test_rows_of_recordings_that_are_no_longer_named_stay(tmp_path: Path) -> None:
    run(tmp_path, [transcript(0, 0, 3), outcome(1, 3)])
    other = replace(RECORDING, id="bb")
    run(tmp_path, [outcome(0, 0, LASTING, other)], other)
    assert {row["recording_id"] for row in read_table(str(tmp_path), "recordings")} == {"aa", "bb"}
    assert_whole(str(tmp_path))


@pytest.mark.parametrize(
    ("last", "again"),
    [
        (outcome(0, 0, LASTING), True),
        (outcome(0, 0, PASSING), True),
        (outcome(1, 3, PASSING), True),
        (outcome(1, 3, LASTING), False),
        (outcome(1, 3), False),
    ],
    ids=["failed", "failed for now", "partial for now", "partial", "ok"],
)
def test_retry_failed_takes_up_what_may_go_better(tmp_path: Path, last: Outcome, again: bool) -> None:
    run(tmp_path, [transcript(0, 0, 3), last])
    assert opened(tmp_path).todo([RECORDING]) == []
    assert opened(tmp_path, retry_failed=True).todo([RECORDING]) == [RECORDING] * again


# --- what is complete ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_recording_is_complete_with_its_last_piece(tmp_path: Path, order: tuple[int, ...]) -> None:
    items = [transcript(0, 0, 3, "One."), transcript(1, 3, 5, "Two."), outcome(2, 5)]
    with opened(tmp_path) as ledger:
        ledger.todo([RECORDING])
        *first, last = [items[index] for index in order]
        assert ledger.receive(first) == []
        assert ledger.missing() == [RECORDING]
        (finished,) = ledger.receive([last])
        assert ledger.missing() == []
    assert [item.text for _, item in finished.segments] == ["One.", "Two."]
    assert texts(tmp_path) == ["One.", "Two."]


def test_a_recording_that_is_not_complete_has_no_row(tmp_path: Path) -> None:
    run(tmp_path, [transcript(0, 0, 3), outcome(2, 5)])
    assert read_table(str(tmp_path), "recordings") == []
    assert read_runs(str(tmp_path))[0]["status"] == "interrupted"
    assert opened(tmp_path).todo([RECORDING]) == [RECORDING]


def test_replays_are_ignored_even_after_completion(tmp_path: Path) -> None:
    items = [transcript(0, 0, 3), transcript(1, 3, 5), outcome(2, 5)]
    with opened(tmp_path, options=EAGER) as ledger:
        ledger.todo([RECORDING])
        assert len(ledger.receive([items[0], items[0], items[2], items[2], items[1], items[1]])) == 1
        assert ledger.receive(items) == []
    assert len(texts(tmp_path)) == 2
    assert_whole(str(tmp_path))


def test_material_of_recordings_that_are_not_to_do_is_ignored(tmp_path: Path) -> None:
    strange = replace(RECORDING, id="zz")
    with opened(tmp_path) as ledger:
        ledger.todo([RECORDING])
        assert ledger.receive([transcript(0, 0, 3, "No.", "zz"), outcome(1, 3, None, strange)]) == []
    assert read_table(str(tmp_path), "recordings") == []


def test_a_second_attempt_that_ends_elsewhere_is_not_mixed_with_the_first(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.todo([RECORDING])
        ledger.receive([transcript(0, 0, 3, "Old 0."), transcript(1, 3, 9, "Old 1."), transcript(2, 9, 12, "Old 2.")])
        assert ledger.receive([outcome(2, 5, PASSING)]) == []  # the store broke off at 5 s: passage 1 is another one
        assert ledger.receive([transcript(0, 0, 3, "New 0.")]) == []
        (finished,) = ledger.receive([transcript(1, 3, 5, "New 1.")])
    assert [item.text for _, item in finished.segments] == ["New 0.", "New 1."]
    assert only(tmp_path)["status"] == "partial"


def test_a_later_outcome_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.todo([RECORDING])
        assert ledger.receive([outcome(1, 3, PASSING), outcome(2, 5), transcript(0, 0, 3)]) == []
        assert len(ledger.receive([transcript(1, 3, 5)])) == 1
    assert (only(tmp_path)["status"], only(tmp_path)["duration_s"]) == ("ok", 5.0)


def test_speechless_stretches_count_as_received(tmp_path: Path) -> None:
    silence = replace(outcome(1, 9), speechless=(Span(0, 2 * SECOND), Span(5 * SECOND, 9 * SECOND)))
    with opened(tmp_path) as ledger:
        ledger.todo([RECORDING])
        assert len(ledger.receive([silence, transcript(0, 2, 5)])) == 1
    assert only(tmp_path)["speechless"] == [{"start": 0.0, "end": 2.0}, {"start": 5.0, "end": 9.0}]


def test_a_quarantined_recording_has_a_failed_row(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.todo([RECORDING])
        ledger.receive([transcript(0, 0, 3)])
        finished = ledger.quarantine(RECORDING, Failure("worker", "lost", "its worker died twice", retryable=True))
        assert finished.outcome.status == "failed"
        assert ledger.missing() == []
    row = only(tmp_path)
    assert (row["status"], row["error_stage"], row["error_kind"]) == ("failed", "worker", "lost")
    assert texts(tmp_path) == []


# --- what is replaced ---------------------------------------------------------------------------------------------


def test_a_new_version_replaces_the_rows_inside_their_part(tmp_path: Path) -> None:
    other = replace(RECORDING, id="bb")
    first = [
        transcript(0, 0, 3, "Old."),
        outcome(1, 3),
        transcript(0, 0, 4, "Other.", "bb"),
        outcome(1, 4, None, other),
    ]
    run(tmp_path, first, RECORDING, other)
    parts = sorted(path.name for path in tmp_path.glob("*/part-*"))
    new = replace(RECORDING, version="2")
    with opened(tmp_path) as ledger:
        assert ledger.todo([new, other]) == [new]
        ledger.receive([transcript(0, 0, 3, "New."), outcome(1, 3, None, new)])
    assert ledger.done == 2
    assert texts(tmp_path) == ["New.", "Other."]
    assert sorted(path.name for path in tmp_path.glob("*/part-*")) == parts
    assert_whole(str(tmp_path))
    assert {row["recording_id"]: row["version"] for row in read_table(str(tmp_path), "recordings")} == {
        "aa": "2",
        "bb": "1",
    }


def test_a_retry_that_succeeds_replaces_the_failed_row(tmp_path: Path) -> None:
    run(tmp_path, [outcome(0, 0, PASSING)])
    run(tmp_path, [transcript(0, 0, 3), outcome(1, 3)], retry_failed=True)
    assert only(tmp_path)["status"] == "ok"
    assert texts(tmp_path) == ["Hello."]
    assert_whole(str(tmp_path))


def test_a_retry_that_fails_earlier_leaves_what_was_there(tmp_path: Path) -> None:
    run(tmp_path, [transcript(0, 0, 3), outcome(1, 3, PASSING)])
    run(tmp_path, [outcome(0, 0, PASSING)], retry_failed=True)
    assert only(tmp_path)["status"] == "partial"
    assert texts(tmp_path) == ["Hello."]
    assert_whole(str(tmp_path))


def test_a_new_version_that_fails_replaces_what_was_there(tmp_path: Path) -> None:
    run(tmp_path, [transcript(0, 0, 3), outcome(1, 3)])
    new = replace(RECORDING, version="2")
    run(tmp_path, [outcome(0, 0, LASTING, new)], new)
    assert only(tmp_path)["status"] == "failed"
    assert texts(tmp_path) == []
    assert_whole(str(tmp_path))


def test_old_words_go_with_their_recording(tmp_path: Path) -> None:
    run(tmp_path, [transcript(0, 0, 3, "Hi.", "aa", Word(0, SECOND, "Hi.", 0.5)), outcome(1, 3)])
    assert [row["word"] for row in read_table(str(tmp_path), "words")] == ["Hi."]
    new = replace(RECORDING, version="2")
    run(tmp_path, [transcript(0, 0, 3, "Bye."), outcome(1, 3, None, new)], new)
    assert read_table(str(tmp_path), "words") == []
    assert_whole(str(tmp_path))


# --- when it is committed -----------------------------------------------------------------------------------------


def parts_after(out: Path, options: LedgerOptions) -> int:
    """Return how many parts there are before the ledger is closed, of nine recordings with a segment and two words."""
    words = (Word(0, 1, "a", 0.5), Word(1, 2, "b", 0.5))
    names = [replace(RECORDING, id=str(number)) for number in range(9)]
    with opened(out, options=options) as ledger:
        ledger.todo(names)
        for name in names:
            ledger.receive([transcript(0, 0, 3, "a b", name.id, *words), outcome(1, 3, None, name)])
        return len(list(out.glob("recordings/*")))


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (LedgerOptions(), 0),
        (LedgerOptions(flush_recordings=4), 2),
        (LedgerOptions(flush_segments=3), 3),
        (LedgerOptions(flush_words=10), 1),
        (EAGER, 9),
        (LedgerOptions(flush_s=0.0, flush_share=1e9), 0),
        (LedgerOptions(flush_s=0.0, flush_load=1e-9), 1),
    ],
    ids=["nothing due", "recordings", "segments", "words", "time", "share of the run", "load"],
)
def test_a_commit_is_due(tmp_path: Path, options: LedgerOptions, parts: int) -> None:
    assert parts_after(tmp_path, options) == parts
    assert len(read_table(str(tmp_path), "recordings")) == 9
    assert_whole(str(tmp_path))


def test_complete_recordings_are_committed_when_the_job_breaks(tmp_path: Path) -> None:
    def job() -> None:
        with opened(tmp_path) as ledger:
            ledger.todo([RECORDING, replace(RECORDING, id="bb")])
            ledger.receive([transcript(0, 0, 3), outcome(1, 3)])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job()
    assert only(tmp_path)["recording_id"] == "aa"
    assert read_runs(str(tmp_path))[0]["status"] == "interrupted"


def test_runs_do_not_share_the_names_of_parts(tmp_path: Path) -> None:
    for number in range(3):
        name = replace(RECORDING, id=str(number))
        run(tmp_path, [outcome(0, 0, LASTING, name)], name)
    assert len(list(tmp_path.glob("recordings/*"))) == 3


# --- what stands in the files -------------------------------------------------------------------------------------


def test_the_run_file_tells_what_was_asked_and_what_came(tmp_path: Path) -> None:
    bad = replace(RECORDING, id="bb")
    items = [transcript(0, 0, 3), outcome(1, 3), outcome(0, 0, LASTING, bad)]
    run(tmp_path, items, RECORDING, bad, run={"sources": ["x/"]})
    (found,) = read_runs(str(tmp_path))
    assert found["status"] == "finished"
    assert found["run"] == {"sources": ["x/"]}
    assert found["config"] == {**CONFIG, "temperatures": [0.0, 0.4]}
    counts = {"segments": 1, "flagged_segments": 1, "omissions": 1, "omitted_s": 2.2}  # one word in three seconds
    assert found["counts"] == {"ok": 1, "partial": 0, "failed": 1} | counts
    assert found["failures"] == {"decode/broken": 1}
    assert (found["to_do"], found["audio_s"]) == (2, 3.0)
    assert set(found["versions"]) == {"python", "bulkscribe", "ray", "torch"}
    assert found["run_id"] == only_run(tmp_path)
    assert {row["run_id"] for row in read_table(str(tmp_path), "recordings")} == {found["run_id"]}


def only_run(out: Path) -> str:
    """Return the name of the only run's file, without its ending."""
    (path,) = (out / "runs").iterdir()
    return path.stem


def test_the_run_file_says_running_while_it_runs(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.todo([RECORDING])
        assert read_runs(str(tmp_path))[0]["status"] == "running"


def test_everyday_readers_read_the_folders(tmp_path: Path) -> None:
    run(tmp_path, [transcript(0, 0, 3, "Hi.", "aa", Word(0, SECOND, "Hi.", 0.5)), outcome(1, 3)])
    for table in ("recordings", "segments", "words"):
        assert len(pd.read_parquet(tmp_path / table)) == 1
        assert len(pl.read_parquet(f"{tmp_path}/{table}/*.parquet")) == 1
        assert len(duckdb.sql(f"from '{tmp_path}/{table}/*.parquet'").fetchall()) == 1


def test_the_segments_of_silence_can_be_read(tmp_path: Path) -> None:
    run(tmp_path, [replace(outcome(0, 3), speechless=(Span(0, 3 * SECOND),))])
    assert list(pd.read_parquet(tmp_path / "segments").columns)[:2] == ["recording_id", "index"]
    assert duckdb.sql(f"from '{tmp_path}/segments/*.parquet'").fetchall() == []
    assert not (tmp_path / "words").exists()


def test_parts_carry_the_layouts_version_and_the_columns_their_units(tmp_path: Path) -> None:
    run(tmp_path, [transcript(0, 0, 3), outcome(1, 3)])
    for table in ("recordings", "segments"):
        (path,) = (tmp_path / table).iterdir()
        schema = pq.read_schema(path)
        assert schema.metadata[b"bulkscribe.format"] == b"1"
        assert all(field.metadata[b"doc"] for field in schema)
        assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


# --- what is refused ----------------------------------------------------------------------------------------------


def test_another_configuration_is_refused_with_the_differences_named(tmp_path: Path) -> None:
    run(tmp_path, [outcome(0, 0, LASTING)])
    before = contents(tmp_path)
    other = {**CONFIG, "model": "small", "temperatures": (0.0,), "language": "de"}
    with pytest.raises(UserError) as caught:
        Ledger.open(str(tmp_path), other, model="small")
    assert str(caught.value).startswith(f"{tmp_path} holds transcripts of another configuration: ")
    assert 'model was "base", is "small"' in str(caught.value)
    assert "temperatures was [0.0, 0.4], is [0.0]" in str(caught.value)
    assert 'language was not there, is "de"' in str(caught.value)
    assert "task" not in str(caught.value)
    assert "--out" in caught.value.hint
    assert contents(tmp_path) == before


def test_another_configuration_is_refused_when_its_run_file_is_lost(tmp_path: Path) -> None:
    run(tmp_path, [outcome(0, 0, LASTING)])
    (tmp_path / "runs" / f"{only_run(tmp_path)}.json").unlink()
    with pytest.raises(UserError, match="options are lost"):
        Ledger.open(str(tmp_path), {**CONFIG, "model": "small"}, model="small")


def test_another_configuration_may_follow_where_no_row_was_written(tmp_path: Path) -> None:
    run(tmp_path, [transcript(0, 0, 3)])
    with Ledger.open(str(tmp_path), {"model": "small"}, model="small") as ledger:
        assert ledger.todo([RECORDING]) == [RECORDING]


def test_equal_configurations_have_equal_hashes() -> None:
    assert config_hash({"a": 1, "b": (1.0, None)}) == config_hash({"b": [1.0, None], "a": 1})
    assert config_hash({"a": 1}) != config_hash({"a": 2})
    assert config_hash({"a": 1}) != config_hash({"b": 1})


@pytest.mark.parametrize("table", ["recordings", "segments", "words"])
def test_a_folder_with_files_of_others_in_place_of_the_tables_is_refused(tmp_path: Path, table: str) -> None:
    (tmp_path / table).mkdir()
    (tmp_path / table / "monday.mp3").write_bytes(b"ID3")
    with pytest.raises(UserError, match=r"not bulkscribe's: monday\.mp3"):
        opened(tmp_path)
    assert list(contents(tmp_path)) == [f"{table}/monday.mp3"]


def test_a_part_of_another_program_is_refused(tmp_path: Path) -> None:
    for table in ("recordings", "segments"):
        (tmp_path / table).mkdir()
        pq.write_table(pa.table({"recording_id": ["a"]}), tmp_path / table / "part-0.parquet")
    with pytest.raises(UserError, match="not written by this version"):
        opened(tmp_path)


@pytest.mark.parametrize("table", ["recordings", "segments"])
def test_an_output_with_a_missing_part_is_refused(tmp_path: Path, table: str) -> None:
    run(tmp_path, [transcript(0, 0, 3), outcome(1, 3)])
    (part,) = (tmp_path / table).iterdir()
    part.unlink()
    with pytest.raises(UserError, match=f"damaged: {part.name} is not in each"):
        opened(tmp_path)


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path) -> None:
    mine = {"notes.txt": b"1", "_staging/mine.bin": b"2", "recordings/.DS_Store": b"3", "segments/_SUCCESS": b""}
    for name, data in mine.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    run(tmp_path, [transcript(0, 0, 3), outcome(1, 3)])
    assert opened(tmp_path).todo([RECORDING]) == []
    assert {name: contents(tmp_path)[name] for name in mine} == mine


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(UserError, match="Not a directory"):
        opened(tmp_path / "out")


def test_an_output_that_cannot_be_written_stops_the_job_and_keeps_what_is_committed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    other = replace(RECORDING, id="bb")

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def job() -> None:
        try:
            with opened(out, options=EAGER) as ledger:
                ledger.todo([RECORDING, other])
                ledger.receive([transcript(0, 0, 3), outcome(1, 3)])
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # as on a full disk, no file can grow
                ledger.receive([outcome(0, 0, LASTING, other)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    with pytest.raises(UserError, match=r"cannot write .*_staging"):
        job()
    assert opened(out).todo([RECORDING, other]) == [other]
    assert_whole(str(out))


# --- stores -------------------------------------------------------------------------------------------------------


def test_an_object_store_holds_the_same_as_a_folder(tmp_path: Path) -> None:
    names = listing(12)
    changed = [replace(name, version="2") if number % 2 else name for number, name in enumerate(names)]
    with s3_server():
        for out in (str(tmp_path), "s3://audio/deep/out"):
            for recordings in (names, changed):
                items = [item for name in recordings for item in material(name, 1)]
                run(out, items, *recordings, options=LedgerOptions(flush_recordings=5))
        assert_whole("s3://audio/deep/out")
        assert_same_tables(str(tmp_path), "s3://audio/deep/out")
        with opened("s3://audio/deep/out") as ledger:
            assert ledger.todo(changed) == []
