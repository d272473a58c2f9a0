"""A small output as a job leaves it, without a job: real rows, two parts, a failed recording, flags."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from pipeline import rows
from pipeline.types import SAMPLE_RATE, Attempt, Failure, Finished, Media, Outcome, Recording, Segment

FAILURE = Failure("decode", "unreadable", "moov atom not found")


def segment(start_s: float, end_s: float, text: str, *flags: str, language: str = "en") -> Segment:
    """Return a segment; times in seconds."""
    return Segment(
        start=round(start_s * SAMPLE_RATE),
        end=round(end_s * SAMPLE_RATE),
        text=text,
        language=language,
        language_probability=0.98,
        task="transcribe",
        avg_logprob=-0.25,
        compression_ratio=1.5,
        no_speech_prob=0.02,
        temperature=0.0,
        attempts=(Attempt(0.0, -0.25, 1.5),),
        speech_ratio=0.9,
        flags=flags,
    )


def finished(id_: str, uri: str, *segments: Segment, failure: Failure | None = None) -> Finished:
    """Return a complete recording, of ten seconds unless it failed."""
    duration = 0 if failure else 10 * SAMPLE_RATE
    outcome = Outcome(
        Recording(id_, uri, size=1000, version="1"),
        passages=1,
        duration=duration,
        speech=duration,
        media=Media("mp3", "mp3", 16_000, 1),
        failure=failure,
    )
    return Finished(outcome, "en" if segments else None, 0.98 if segments else None, tuple((0, s) for s in segments))


def write_part(out: Path, part: str, items: list[Finished]) -> None:
    """Write a segments part and the recordings part that names it."""
    for folder in ("recordings", "segments"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    pq.write_table(rows.segment_rows(items), out / "segments" / part)
    table = rows.recording_rows(items, part=part, model="base", config_hash="c0ffee", run_id="run1")
    pq.write_table(table, out / "recordings" / part)


def write_output(out: Path) -> Path:
    """Write an output of four recordings in two parts and return its folder."""
    write_part(
        out,
        "part-0001.parquet",
        [
            finished("aaaa", "/radio/news.mp3", segment(0, 2.5, "Good evening."), segment(2.5, 5, "Here is the news.")),
            finished("bbbb", "/radio/song.mp3", segment(0, 10, "la la la la la", "repetitive", "no_speech")),
        ],
    )
    write_part(
        out,
        "part-0002.parquet",
        [
            finished("cccc", "/radio/broken.m4a", failure=FAILURE),
            finished("dddd", "s3://radio/été.opus", segment(1, 2, "Bonsoir.", language="fr")),
        ],
    )
    return out
