"""ffmpeg: any audio or video to blocks of int16 mono, 16 kHz if not asked otherwise, in constant memory.

Duty: how a file is best given to ffmpeg, and whether what came is what the file promises. Knows no stores, no speech,
and no retries: the opener that it is given does those.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from math import inf
from typing import BinaryIO

import numpy as np

from pipeline import headers
from pipeline.errors import DecodeError
from pipeline.ffmpeg_log import FfmpegLog
from pipeline.ffmpeg_process import Feeder, Watch, command_line, output, running
from pipeline.selection import MIX, Selection
from pipeline.types import AT_LEAST_ONE, NOT_NEGATIVE, SAMPLE_RATE, Media, Pcm, setting

# How much less than promised may come: codecs pad and prime (up to 0.1 s of what is counted), and headers round.
PADDING_S = 0.5
DAMAGED_S = 0.05  # where ffmpeg met errors
# Containers in which ffmpeg finds a time to a millisecond or two; those of the second row only with PCM in them. Others
# (WMA, raw AC-3, ADPCM in WAV) are decoded from their start: they guess by the bit rate. tests/test_decode.py measures.
_EXACT = ("aac", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "mp3", "mpegts", "ogg", "tta", "wv")
_EXACT_PCM = ("aiff", "au", "caf", "w64", "wav")
# Endings of names that promise such audio: of the second row they are the containers' own. Not those of video, whose
# pictures are decoded up to the place.
_EXACT_NAMES = ("aac", "flac", "m4a", "m4b", "mka", "mp3", "oga", "ogg", "opus", "tta", "wv")
EXACT_ENDINGS = frozenset({*_EXACT_NAMES, *_EXACT_PCM})
SEEK_S = 30  # what lies further in is sought, since that costs a look at the header
_BYTES_S = 4 << 20  # of a file, with pictures: what goes on after `max_hours` of that has no end
_HEAD = 65_536  # bytes looked at before a stream is given to ffmpeg
_TAG = 16 << 20  # bytes of a tag that are read ahead
_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"}  # what an MP4 or MOV file can begin with


@dataclass(frozen=True)
class DecodeOptions:
    """How ffmpeg is watched and read."""

    stall_s: float = setting(
        180.0, "end ffmpeg after this long without progress", "seconds", rows=False, within=AT_LEAST_ONE
    )
    max_hours: float = setting(
        48.0,
        "Decode no more of a recording than this: a small file may claim, or a stream may have, no end.",
        "hours",
        within=NOT_NEGATIVE,
    )
    block_s: float = setting(10.0, "length of the blocks that are handed on", "seconds", rows=False, within=(0.1, inf))


class Decoder:
    """Decodes one recording once. `media` fills while `blocks()` is read: whole when the first block is there."""

    def __init__(
        self,
        opener: Callable[[], BinaryIO],
        path: str | None = None,
        options: DecodeOptions = DecodeOptions(),
        selection: Selection = MIX,
        suffix: str = "",
        stretch: tuple[int, int | None] = (0, None),
        window: tuple[int, int] | None = None,
        glimpse: tuple[float, float] | None = None,
        url: str | None = None,
        rate: int = SAMPLE_RATE,
    ) -> None:
        """`opener` starts reading the file anew; with `path` ffmpeg reads it there itself, with `url` from there.

        With `window` it is a piece of what stands there: its first byte, and how many there are.

        `suffix` is the ending of the name: some formats (raw telephone codecs) are known by nothing else. Only the
        `stretch` is decoded: from its first sample to before its last one, or to the end. `rate` (Hz) is that of all
        samples here. A `glimpse` is a stretch by seconds of the file (start and length) for which about there is good
        enough: what lies before is not read where the container tells where that is, and nothing is missing behind it.
        It needs something that ffmpeg can seek in.
        """
        self.media = Media(selection=selection.name)
        self._opener = opener
        self._url = url or (path and f"file:{path}")
        if window:
            self._url = f"subfile,,start,{window[0]},end,{sum(window)},,:file:{path}"
        self._glimpse = glimpse
        self._options = options
        self._selection = selection
        self._suffix = suffix
        self._start, self._end = stretch
        self._rate = rate
        self._most = round(options.max_hours * 3600 * _BYTES_S)
        self._samples = 0
        self._counted_s: float | None = None  # by the file's header, which is believed before ffmpeg's length of it
        self.promised_s: float | None = None  # length by a count or an index; None where it is a guess

    def blocks(self) -> Iterator[Pcm]:
        """Yield int16 [samples] of mono audio at `rate`: each `block_s` long, the last one what is left.

        All that can be decoded comes first. Then DecodeError is raised if ffmpeg failed or nothing came out
        (`not_audio`, `no_audio_stream`, `empty`, `decode_failed`, `stuck`) or gave less than the container promises
        (`audio_missing`) or does not end (`too_long`, `too_large`), OpenError if the store did.
        """
        if self._glimpse is not None:
            assert self._url is not None
            yield from self._decode(self._url, None)
            return
        with closing(self._opener()) as stream:
            head = _read_head(stream)
            if not head:
                raise DecodeError("empty", "the file has 0 bytes")
            self._counted_s = headers.counted_s(head)
            if self._url is not None:
                stream.close()
                yield from self._decode(self._url, None)
                return
            if not _index_is_behind(head):
                try:
                    yield from self._decode("pipe:0", Feeder(head, stream, self._most))
                    return
                except DecodeError as error:
                    if self._samples or error.kind in ("no_audio_stream", "stuck", "too_large"):
                        raise
            else:
                yield from self._decode_spooled(head, stream)
                return
        # Nothing came through the pipe: some containers have to be read back and forth.
        with closing(self._opener()) as stream:
            yield from self._decode_spooled(b"", stream)

    def _decode_spooled(self, head: bytes, stream: BinaryIO) -> Iterator[Pcm]:
        with tempfile.NamedTemporaryFile(prefix="bulkscribe-", suffix=self._suffix) as spool:
            feeder = Feeder(head, stream, self._most, os.path.dirname(spool.name))
            feeder.start_into(os.dup(spool.fileno()))
            try:
                watch = Watch(self._options.stall_s, feeder)
                while feeder.is_alive():
                    feeder.join(watch.patience_s)
                    watch.check()
            finally:
                feeder.stop()
            feeder.raise_error()
            yield from self._decode(f"file:{spool.name}", None)

    def _decode(self, url: str, feeder: Feeder | None) -> Iterator[Pcm]:
        log = FfmpegLog(url)
        size = max(1, round(self._options.block_s * self._rate)) * 2
        pending = bytearray()
        sought = self._glimpse is not None or (feeder is None and self._seekable(url))
        stretch = (self._start, self._end) if sought else None
        command = command_line(url, self._selection, self._rate, stretch, self._glimpse)
        with running(command, feeder) as process:
            chunks = output(process, log, Watch(self._options.stall_s, feeder))
            for chunk in chunks if sought else self._counted(chunks):
                pending += chunk
                while len(pending) >= size:
                    yield self._block(log, pending[:size])
                    del pending[:size]
                    self._bound()
            if len(pending) >= 2:
                yield self._block(log, pending[: len(pending) // 2 * 2])
            if not sought and self._end is not None and self._samples >= self._end - self._start:
                return  # ffmpeg, and who feeds it, need not come to the end of the file
            code = process.wait()
        self._tell(log)
        if feeder is not None:
            feeder.raise_error()
        self._judge(code, log)

    def _counted(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the bytes of the stretch, of audio that begins with the file."""
        skip = self._start * 2
        left = sys.maxsize if self._end is None else (self._end - self._start) * 2
        for chunk in chunks:
            if len(chunk) > skip:
                yield chunk[skip : skip + left]
                left -= min(left, len(chunk) - skip)
                if not left:
                    return
            skip = max(0, skip - len(chunk))

    def _seekable(self, url: str) -> bool:
        """Say whether ffmpeg can go to the stretch at once, and exactly."""
        if self._start < SEEK_S * self._rate:
            return False
        log = FfmpegLog(url)
        with running(command_line(url, self._selection, self._rate), None) as process:
            next(output(process, log, Watch(self._options.stall_s, None)), None)
        plain = (log.media.codec or "").startswith("pcm_")
        return log.alone and (log.media.container in _EXACT or (plain and log.media.container in _EXACT_PCM))

    def _block(self, log: FfmpegLog, raw: bytearray) -> Pcm:
        self._tell(log)
        block = np.frombuffer(raw, "<i2")
        self._samples += len(block)
        return block

    def _bound(self) -> None:
        hours = self._options.max_hours
        if self._samples >= hours * 3600 * self._rate:
            raise DecodeError("too_long", f"it goes on after {hours:g} h; --decode-max-hours takes more of it")

    def _tell(self, log: FfmpegLog) -> None:
        self.media = replace(log.media, selection=self._selection.name)
        self.promised_s = self._counted_s or log.promised_s

    def _judge(self, code: int, log: FfmpegLog) -> None:
        """Raise what the end of ffmpeg means; an exit code of 0 with audio means nothing."""
        if not log.opened:
            raise DecodeError("not_audio", log.words or f"ffmpeg ended with {code}")
        if not self.media.tracks:
            found = ", ".join(log.other_streams[:3]) or "nothing"
            raise DecodeError("no_audio_stream", f"there is no audio stream ({found})")
        if code < 0:
            killed = code in (-signal.SIGKILL, -signal.SIGTERM)  # from outside, or out of memory
            message = f"ffmpeg was ended by {signal.Signals(-code).name}"
            raise DecodeError("decode_failed", message, retryable=killed)
        if code > 0:
            raise DecodeError("decode_failed", log.words or f"ffmpeg ended with {code}")
        if not self._samples:
            nothing = f"it ends before {self._start / self._rate:g} s" if self._start else "no audio came out"
            raise DecodeError("empty", log.words or nothing)
        if self._glimpse is None:
            self._account(log)

    def _account(self, log: FfmpegLog) -> None:
        """Raise if much of what the container promises did not come: decoders pass over what they cannot read."""
        came_s = self._samples / self._rate
        end_s = self.promised_s or 0.0  # where nothing is promised, nothing is missing
        if end_s and self._end is not None:
            end_s = min(end_s, self._end / self._rate)
        promised_s = end_s - self._start / self._rate
        missing_s = promised_s - came_s
        if missing_s > (DAMAGED_S if log.damaged else PADDING_S):
            cause = f": {log.words}" if log.words else ""
            raise DecodeError("audio_missing", f"{missing_s:.2f} s of {promised_s:.2f} s could not be decoded{cause}")
        # An Ogg of several streams in a row tells the length of one of them, or none.
        whole = end_s and abs(missing_s) <= PADDING_S and log.media.container != "ogg"
        if log.broke_off and not whole:
            raise DecodeError("audio_missing", f"all behind {came_s:.2f} s could not be decoded: {log.words}")


def _read_head(stream: BinaryIO) -> bytes:
    """Read enough to know the kind, and of an MP3 the frame behind its tag, which holds pictures at times."""
    head = b""
    while len(head) < min(headers.needed(head), _TAG):
        more = stream.read(_HEAD)
        if not more:
            break
        head += more
    return head


def _index_is_behind(head: bytes) -> bool:
    """Say whether this is an MP4 or MOV whose index does not come before its audio: no pipe can carry that."""
    place = 0
    while place + 8 <= len(head):
        size, kind = int.from_bytes(head[place : place + 4], "big"), head[place + 4 : place + 8]
        if place == 0 and kind not in _BOXES:
            return False
        if kind in (b"moov", b"mdat"):
            return kind == b"mdat"
        if size == 1:
            size = int.from_bytes(head[place + 8 : place + 16], "big")
        if size < 8:
            return True
        place += size
    return place > 0
