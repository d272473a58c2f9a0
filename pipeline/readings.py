"""A recording's clips with their audio: read from the source again, measured, judged, and encoded.

Duty: one recording in, its finished rows and its kept clips' files out, whatever the source has become since it was
transcribed. Encoded clips wait in a temporary file, so that a recording of ten hours needs no more memory than a short
one. Knows samples and soundfile; no layout of data sets.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

from pipeline import gates, sound
from pipeline.edges import REACH_S, TOLERANCE_S, edges, excerpts
from pipeline.errors import DataError, UserError, install
from pipeline.gates import GateOptions
from pipeline.reopening import open_audio
from pipeline.types import Failure, Pcm, Span, setting

Row = dict[str, Any]

RATES = 8_000, 48_000  # Hz: what a source says of itself is believed between these
CODECS = {"flac": ("FLAC", "PCM_16"), "opus": ("OGG", "OPUS"), "wav": ("WAV", "PCM_16")}
_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
_PAD_S = 0.2  # wanted before and behind the speech
_IN_MEMORY = 16 << 20  # bytes of encoded clips; more lies on the disk
_UNHEARD = dict.fromkeys((*sound.Sound.__dataclass_fields__, "quality_mos", "audio_error", "sample_rate"))


@dataclass(frozen=True)
class AudioOptions:
    """How clips are written."""

    audio: str = setting("flac", "Codec of the clips' audio.", choices=tuple(CODECS))
    rate: int | None = setting(None, "Sample rate of the clips; by default the source's own, up to 48 kHz.", "Hz")


@dataclass(frozen=True, slots=True)
class Encoded:
    """A kept clip: its row, and where its file lies among those of its recording."""

    row: Row
    suffix: str
    spool: BinaryIO | None  # None on its way between processes: `readers.py`
    start: int
    size: int

    def load(self) -> bytes:
        """Return the clip's file."""
        assert self.spool
        self.spool.seek(self.start)
        return self.spool.read(self.size)


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of a recording: its clips' rows, and those that are kept."""

    recording: Row
    rows: list[Row]
    kept: list[Encoded]
    status: str
    rate: int | None
    failure: Failure | None
    spool: BinaryIO | None = None
    made_of: str | None = None  # hash of what the rows were made of, where that may change

    def close(self) -> None:
        """Let go of the files of the kept clips."""
        if self.spool is not None:
            self.spool.close()


@dataclass(frozen=True)
class ClipReader:
    """Reads clips; see `readers.Reader`."""

    audio: AudioOptions
    gates: GateOptions

    def __call__(self, recording: Row, rows: Sequence[Row]) -> Reading:
        return read(recording, rows, self.audio, self.gates)

    def given_up(self, recording: Row, rows: Sequence[Row], failure: Failure) -> Reading:
        """See `readers.Reader`."""
        done = [_silent(row, failure, self.gates) for row in rows]
        return Reading(recording, done, [], "failed", _rate(recording["sample_rate"], self.audio), failure)

    def weight(self, recording: Row, rows: Sequence[Row]) -> int:
        """See `readers.Reader`."""
        return pcm_bytes(rows, _rate(recording["sample_rate"], self.audio))


def read(recording: Row, rows: Sequence[Row], options: AudioOptions, judged: GateOptions) -> Reading:
    """Read, measure, judge and encode. `rows` are candidates, in order, with the reasons of their texts."""
    if recording["status"] == "failed":
        return _unread(recording, rows, "untranscribed", None)
    if all(row["reasons"] for row in rows):
        return _unread(recording, rows, "unread", None)
    rate = _rate(recording["sample_rate"], options)
    done: list[Row] = []
    kept: list[Encoded] = []
    spool, failure = new_spool(), None
    try:
        for row, audio in _heard(recording, rows, rate):
            done.append(_judged(row, audio, rate, judged))
            if not done[-1]["reasons"]:
                kept.append(encode(done[-1] | {"uri": recording["uri"]}, audio, rate, options.audio, spool))
    except DataError as error:
        failure = error.failure
    if failure is None and len(done) < len(rows):
        failure = Failure("decode", "audio_missing", "the audio ends before the clip")
    for row in rows[len(done) :]:
        assert failure
        done.append(_silent(row, failure, judged))
    status = "ok" if failure is None else "partial" if any(row["audio_error"] is None for row in done) else "failed"
    return Reading(recording, done, kept, status, rate, failure, spool)


def _heard(recording: Row, rows: Sequence[Row], rate: int) -> Iterator[tuple[Row, Pcm]]:
    """Yield each row with its audio, the edges in silence; ends where the audio does."""
    begin = recording.get("start_s") or 0.0
    bounds = begin, begin + recording["duration_s"]  # what was listened to: nothing is behind it, or it is broken
    windows = [_window(row, rate, bounds) for row in rows]
    first, last = windows[0].start, max(window.end for window in windows)
    decoder = open_audio(recording, rate, (first, last))
    wanted = [Span(window.start - first, window.end - first) for window in windows]
    for row, window, audio in zip(rows, windows, excerpts(decoder.blocks(), wanted), strict=True):
        begun = window.start / rate
        speech = row["start"] - begun, row["end"] - begun
        if len(audio) < speech[1] * rate - TOLERANCE_S * rate:
            return
        before, after = row["room"]
        at = edges(audio, rate, speech, (before - begun, after - begun), _PAD_S)
        place = {"start": (window.start + at.start) / rate, "end": (window.start + at.end) / rate}
        yield row | place, audio[at.start : at.end]


def _window(row: Row, rate: int, bounds: tuple[float, float]) -> Span:
    """Return the samples of a clip with what its edges may take."""
    before, after = row["room"]
    start = max(bounds[0], row["start"] - REACH_S, before - TOLERANCE_S)
    end = min(bounds[1], row["end"] + REACH_S, after + TOLERANCE_S)
    return Span(round(min(start, row["start"]) * rate), round(max(end, row["end"]) * rate))


def _judged(row: Row, audio: Pcm, rate: int, options: GateOptions) -> Row:
    heard = _finished(row, {**asdict(sound.measure(audio, rate)), "sample_rate": rate}, options)
    if heard["reasons"] or options.min_quality is None:
        return heard
    return _finished(heard, {"quality_mos": sound.quality(audio, rate)}, options)


def _finished(row: Row, numbers: Row, options: GateOptions) -> Row:
    """Return the row with numbers, and with what they say."""
    full = _UNHEARD | row | numbers
    reasons = [*row["reasons"], *(reason for reason in gates.by_sound(full, options) if reason not in row["reasons"])]
    return full | {"reasons": reasons, "kept": not reasons}


def _silent(row: Row, failure: Failure, options: GateOptions) -> Row:
    return _finished(row, {"audio_error": f"{failure.kind}: {failure.message}"}, options)


def _unread(recording: Row, rows: Sequence[Row], status: str, failure: Failure | None) -> Reading:
    return Reading(recording, [_UNHEARD | row | {"kept": False} for row in rows], [], status, None, failure)


def new_spool() -> BinaryIO:
    """Return a file for encoded clips."""
    spool: BinaryIO = tempfile.SpooledTemporaryFile(_IN_MEMORY, prefix="bulkscribe-")  # type: ignore[assignment]  # noqa: SIM115 (it lives as long as the clips)
    return spool


def pcm_bytes(rows: Sequence[Row], rate: int) -> int:
    """Return what the audio of the rows that may be kept takes before it is encoded."""
    seconds: float = sum(row["end"] - row["start"] for row in rows if not row["reasons"])
    return 2 * round(seconds * rate)


def encode(row: Row, audio: Pcm, rate: int, codec: str, spool: BinaryIO) -> Encoded:
    """Put a clip's file behind the others."""
    data = encoded(audio, rate, codec)
    start = spool.seek(0, io.SEEK_END)
    spool.write(data)
    return Encoded(row, codec, spool, start, len(data))


def encoded(audio: Pcm, rate: int, codec: str) -> bytes:
    """Return the audio as a file."""
    container, subtype = CODECS[codec]
    buffer = io.BytesIO()
    _soundfile().write(buffer, audio, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def as_wav(data: bytes) -> bytes:
    """Return an encoded clip as a WAV file."""
    audio, rate = _soundfile().read(io.BytesIO(data), dtype="int16")
    return encoded(audio, rate, "wav")


def _rate(source: int | None, options: AudioOptions) -> int:
    rate = options.rate or min(max(source or RATES[1], RATES[0]), RATES[1])
    if options.audio == "opus":
        return next((known for known in _OPUS_RATES if known >= rate), _OPUS_RATES[-1])
    return rate


def _soundfile() -> Any:
    try:
        import soundfile
    except ModuleNotFoundError as error:
        raise UserError("writing clips needs soundfile, which is not installed", install("datasets")) from error
    return soundfile
