"""A recording's examples with their audio: exactly the stretches that their texts tell of, read from the source again.

Duty: one recording in, its finished rows and its examples' files out, whatever the source has become since. Beside
`readings.py`, which looks for the edges of clips in silence and judges their sound. Knows no texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.edges import TOLERANCE_S, excerpts
from pipeline.errors import DataError
from pipeline.readings import AudioOptions, Encoded, Reading, Row, encode, new_spool, pcm_bytes
from pipeline.reopening import open_audio
from pipeline.types import Failure, Span


@dataclass(frozen=True)
class ExampleReader:
    """Reads examples; see `readers.Reader`."""

    audio: AudioOptions  # with a rate

    def __call__(self, recording: Row, rows: Sequence[Row]) -> Reading:
        return read(recording, rows, self.audio)

    def given_up(self, recording: Row, rows: Sequence[Row], failure: Failure) -> Reading:
        """See `readers.Reader`."""
        done = [_unread(row, failure) for row in rows]
        return Reading(recording, done, [], "failed", self.audio.rate, failure, made_of=recording["made_of"])

    def weight(self, recording: Row, rows: Sequence[Row]) -> int:
        """See `readers.Reader`."""
        assert self.audio.rate
        return pcm_bytes(rows, self.audio.rate)


def read(recording: Row, rows: Sequence[Row], options: AudioOptions) -> Reading:
    """Read and encode the rows that nothing speaks against. They are in order and may overlap."""
    wanted = [row for row in rows if not row["reasons"]]
    rate = options.rate
    assert rate is not None
    if not wanted:
        return Reading(recording, list(rows), [], "unread", None, None, made_of=recording["made_of"])
    kept: dict[str, Encoded] = {}
    spool, failure = new_spool(), None
    spans = [Span(round(row["start"] * rate), round(row["end"] * rate)) for row in wanted]
    first = spans[0].start
    try:
        blocks = open_audio(recording, rate, (first, max(span.end for span in spans))).blocks()
        placed = [Span(span.start - first, span.end - first) for span in spans]
        for row, span, audio in zip(wanted, placed, excerpts(blocks, placed), strict=True):
            if len(audio) < len(span) - TOLERANCE_S * rate:
                failure = Failure("decode", "audio_missing", "the audio ends before the example")
                break
            full = row | {"kept": True, "sample_rate": rate, "uri": recording["uri"]}
            kept[row["clip_id"]] = encode(full, audio, rate, options.audio, spool)
    except DataError as error:
        failure = error.failure
    status = "ok" if failure is None else "partial" if kept else "failed"
    done = [kept[row["clip_id"]].row if row["clip_id"] in kept else _unread(row, failure) for row in rows]
    made_of = recording["made_of"]
    return Reading(recording, done, list(kept.values()), status, rate, failure, spool, made_of)


def _unread(row: Row, failure: Failure | None) -> Row:
    if row["reasons"] or failure is None:
        return row
    return row | {"reasons": ["audio"], "audio_error": f"{failure.kind}: {failure.message}"}
