"""A recording's examples with their audio: exactly the stretches that their texts tell of, read from the source again.

Duty: one recording in, its finished rows and its examples' files out, whatever the source has become since. Beside
`readings.py`, which looks for the edges of clips in silence and judges their sound. Knows no texts.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from typing import BinaryIO

from pipeline.edges import TOLERANCE_S, excerpts
from pipeline.errors import DataError
from pipeline.readings import AudioOptions, Encoded, Reading, Row, encoded, open_audio
from pipeline.types import Failure, Span

_IN_MEMORY = 16 << 20  # bytes of encoded examples; more lies on the disk


def read(recording: Row, rows: Sequence[Row], options: AudioOptions) -> Reading:
    """Read and encode the rows that nothing speaks against. They are in order and may overlap."""
    wanted = [row for row in rows if not row["reasons"]]
    rate = options.rate
    assert rate is not None
    if not wanted:
        return Reading(recording, list(rows), [], "unread", None, None, made_of=recording["made_of"])
    spool: BinaryIO = tempfile.SpooledTemporaryFile(_IN_MEMORY, prefix="bulkscribe-")  # type: ignore[assignment]  # noqa: SIM115 (it lives as long as the examples)
    kept: dict[str, Encoded] = {}
    failure = None
    spans = [Span(round(row["start"] * rate), round(row["end"] * rate)) for row in wanted]
    first = spans[0].start
    try:
        blocks = open_audio(recording, rate, (first, max(span.end for span in spans))).blocks()
        placed = [Span(span.start - first, span.end - first) for span in spans]
        for row, span, audio in zip(wanted, placed, excerpts(blocks, placed), strict=True):
            if len(audio) < len(span) - TOLERANCE_S * rate:
                failure = Failure("decode", "audio_missing", "the audio ends before the example")
                break
            data = encoded(audio, rate, options.audio)
            full = row | {"kept": True, "sample_rate": rate, "uri": recording["uri"]}
            start = spool.seek(0, io.SEEK_END)
            spool.write(data)
            kept[row["clip_id"]] = Encoded(full, options.audio, spool, start, len(data))
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
