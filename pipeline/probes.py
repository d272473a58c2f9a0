"""A recording -> its length and format, from its header.

Duty: read as little as tells it: by ranges where the container says where to look, else what ffmpeg finds in the first
block. Raises nothing for what cannot be read: that is an answer, too. Knows no plan and no listing.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from tinytag import TinyTag, TinyTagException

from pipeline import headers, pieces, storage
from pipeline.decode import Decoder
from pipeline.errors import DataError
from pipeline.types import SAMPLE_RATE, Recording

_TOGETHER = 16  # a store answers each in tens of milliseconds
_PIECE = 65_536  # bytes of a read
# What a parser may meet in a file that is not what its name says.
_NONSENSE = (TinyTagException, struct.error, ArithmeticError, LookupError, ValueError)


@dataclass(frozen=True, slots=True)
class Probe:
    """What a header says. `seconds` is None where it says nothing; `trouble` is why it cannot be read."""

    recording: Recording
    seconds: float | None = None
    sample_rate: int | None = None
    channels: int | None = None
    trouble: str | None = None

    @property
    def format(self) -> str:
        """Ending of the name, rate and channels: `mp3, 44.1 kHz, 2 channels`."""
        parts = [ending(self.recording.uri) or "no ending"]
        if self.sample_rate:
            parts.append(f"{self.sample_rate / 1000:g} kHz")
        if self.channels:
            parts.append("mono" if self.channels == 1 else f"{self.channels} channels")
        return ", ".join(parts)


def ending(uri: str) -> str:
    """Return the ending of a name in small letters, without its dot."""
    return storage.suffix(uri).lower().removeprefix(".")


def probe_all(recordings: Sequence[Recording]) -> list[Probe]:
    """Probe many at a time; the answers are in the order of `recordings`."""
    with ThreadPoolExecutor(_TOGETHER) as pool:
        return list(pool.map(probe, recordings))


def probe(recording: Recording) -> Probe:
    """Read the header of one recording."""
    try:
        found = _by_tag(recording)
        return _of_stretch(found if found.seconds else _by_ffmpeg(recording))
    except DataError as error:
        return Probe(recording, trouble=f"{error.kind}: {error}")


def _of_stretch(found: Probe) -> Probe:
    """Return what is asked for of a file of that length."""
    if found.seconds is None:
        return found
    asked, length = found.recording, round(found.seconds * SAMPLE_RATE)
    end = length if asked.end is None else min(asked.end, length)
    return replace(found, seconds=max(0, end - asked.start) / SAMPLE_RATE)


def _by_tag(recording: Recording) -> Probe:
    with closing(pieces.open_piece(recording.location, recording.version, recording.inside)) as stream:
        file = io.BufferedReader(cast(io.RawIOBase, stream), _PIECE)
        head = file.read(_PIECE)
        if head[:4] == b"OggS":  # which tinytag reads from end to end
            if recording.size is None:
                return Probe(recording)
            file.seek(max(0, recording.size - _PIECE))
            found = headers.ogg(head, file.read(_PIECE))
            return Probe(recording, found.seconds, found.sample_rate, found.channels) if found else Probe(recording)
        file.seek(0)
        try:
            tag = TinyTag.get(recording.uri, file_obj=file, tags=False)
        except _NONSENSE:
            return Probe(recording)
    return Probe(recording, tag.duration, int(tag.samplerate) if tag.samplerate else None, tag.channels)


def _by_ffmpeg(recording: Recording) -> Probe:
    path, window = pieces.local_window(recording.location, recording.inside) or (None, None)
    opener = partial(pieces.open_piece, recording.location, recording.version, recording.inside)
    decoder = Decoder(opener, path, suffix=storage.suffix(recording.uri), window=window)
    next(decoder.blocks())
    media = decoder.media
    return Probe(recording, media.stated_s, media.sample_rate, media.channels)
