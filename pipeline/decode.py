"""ffmpeg: any audio or video to blocks of int16 mono, 16 kHz if not asked otherwise, in constant memory.

Duty: one ffmpeg process a recording, fed by path or by stream, watched, and ended whatever happens. Knows no stores,
no speech, and no retries: the opener that it is given does those.

What a file can make ffmpeg do is bounded: it opens that one file only, by a list of demuxers that follow no
references (no playlists, no scripts, no network), and decodes audio only.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import BinaryIO

import ffmpeg
import numpy as np

from pipeline import headers
from pipeline.errors import DecodeError, OpenError, UserError
from pipeline.ffmpeg_log import LOGLEVEL, FfmpegLog
from pipeline.types import SAMPLE_RATE, Media, Pcm, setting

# Containers of audio and video that hold their own data. What is missing here on purpose: hls, dash, concat, sdp and
# other scripts and playlists that name further files; images; devices; text.
DEMUXERS = (
    "aac,ac3,aiff,alaw,amr,amrnb,amrwb,ape,asf,au,avi,caf,codec2,dsf,dts,dtshd,eac3,flac,flv,g722,g726,gsm,iff,ircam,"
    "loas,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,mulaw,mxf,nut,oga,ogg,oma,qcp,rm,shn,sln,sox,"
    "tak,truehd,tta,voc,w64,wav,wv,xwma"
)
# How much less than promised may come: codecs pad and prime (up to 0.1 s of what is counted), and headers round.
PADDING_S = 0.5
DAMAGED_S = 0.05  # where ffmpeg met errors
# Containers in which ffmpeg finds a time to a millisecond or two; those of the second row only with PCM in them. Others
# (WMA, raw AC-3, ADPCM in WAV) are decoded from their start: they guess by the bit rate. tests/test_decode.py measures.
_EXACT = ("aac", "flac", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "mp3", "mpegts", "ogg", "tta", "wv")
_EXACT_PCM = ("aiff", "au", "caf", "w64", "wav")
SEEK_S = 30  # what lies further in is sought, since that costs a look at the header
RUN_UP_S = 1  # decoded before a stretch that is sought: codecs take some frames to be themselves again
MEMORY = 4 << 30  # bytes of address space for ffmpeg, which takes a tenth of it; long files' indexes take more
FILES = 64  # open ones
_PROTOCOLS = {"pipe": "pipe", "file": "file", "subf": "subfile,file", "http": "http,tcp"}
_HEAD = 65_536  # bytes looked at before a stream is given to ffmpeg
_TAG = 16 << 20  # bytes of a tag that are read ahead
_CHUNK = 262_144  # bytes read from a store at a time
_RECEIVED = 65_536  # bytes that wait for ffmpeg in its socket: what it never reads is read from the store in vain
_BOXES = {b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"}  # what an MP4 or MOV file can begin with


@dataclass(frozen=True)
class DecodeOptions:
    """How ffmpeg is watched and read."""

    stall_s: float = setting(180.0, "end ffmpeg after this long without progress", "seconds", rows=False)
    max_hours: float = setting(
        48.0, "Decode no more of a recording than this: a small file may claim, or a stream may have, no end.", "hours"
    )
    block_s: float = setting(10.0, "length of the blocks that are handed on", "seconds", rows=False)


@dataclass(frozen=True, slots=True)
class Selection:
    """What is listened to. Tracks and channels are counted from 0, as ffmpeg does."""

    track: int = 0
    channel: int | None = None  # None mixes all channels of the track

    @property
    def name(self) -> str:
        """What the tables call it: "mix", "channel 1", "track 1 mix"."""
        heard = "mix" if self.channel is None else f"channel {self.channel}"
        return heard if self.track == 0 else f"track {self.track} {heard}"

    @classmethod
    def of(cls, name: str | None) -> Selection:
        """Return the selection that the tables call `name`; the default one for none."""
        words = (name or "").split()
        numbers = {word: int(number) for word, number in pairwise(words) if number.isdigit()}
        return cls(numbers.get("track", 0), numbers.get("channel"))


def alternatives(media: Media) -> tuple[Selection, ...]:
    """Return what else can be listened to when the mix has no speech: single channels, then further tracks."""
    channels = media.channels or 1
    single = tuple(Selection(0, channel) for channel in range(channels)) if channels > 1 else ()
    return single + tuple(Selection(track) for track in range(1, media.tracks or 1))


def find_ffmpeg() -> str:
    """Return the program: $BULKSCRIBE_FFMPEG, the PATH's, or the one that the imageio-ffmpeg wheel carries."""
    named = os.environ.get("BULKSCRIBE_FFMPEG")
    if named:
        if shutil.which(named) is None:
            raise UserError(f"BULKSCRIBE_FFMPEG is not a program: {named}", "point it to ffmpeg, or unset it")
        return named
    on_path = shutil.which("ffmpeg")
    if on_path is not None:
        return on_path
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:
        raise UserError("no ffmpeg found", "install ffmpeg, or: pip install imageio-ffmpeg") from error


class Decoder:
    """Decodes one recording once. `media` fills while `blocks()` is read: whole when the first block is there."""

    def __init__(
        self,
        opener: Callable[[], BinaryIO],
        path: str | None = None,
        options: DecodeOptions = DecodeOptions(),
        selection: Selection = Selection(),
        suffix: str = "",
        stretch: tuple[int, int | None] = (0, None),
        window: tuple[int, int] | None = None,
        glimpse: tuple[float, float] | None = None,
        url: str | None = None,
        rate: int = SAMPLE_RATE,
    ) -> None:
        """`opener` starts reading the file anew; with `path` ffmpeg reads it there itself, with `url` from there.

        With `window` it is a piece of what stands there: its first byte, and how many there are. With `url` it is read
        from there.

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
        self._samples = 0
        self._counted_s: float | None = None  # by the file's header, which is believed before ffmpeg's length of it
        self.promised_s: float | None = None  # length by a count or an index; None where it is a guess

    def blocks(self) -> Iterator[Pcm]:
        """Yield int16 [samples] of mono audio at `rate`: each `block_s` long, the last one what is left.

        All that can be decoded comes first. Then DecodeError is raised if ffmpeg failed or nothing came out
        (`not_audio`, `no_audio_stream`, `empty`, `decode_failed`, `stuck`) or gave less than the container promises
        (`audio_missing`) or does not end (`too_long`), OpenError if the store did.
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
                    yield from self._decode("pipe:0", _Feeder(head, stream))
                    return
                except DecodeError as error:
                    if self._samples or error.kind in ("no_audio_stream", "stuck"):
                        raise
            else:
                yield from self._decode_spooled(head, stream)
                return
        # Nothing came through the pipe: some containers have to be read back and forth.
        with closing(self._opener()) as stream:
            yield from self._decode_spooled(b"", stream)

    def _decode_spooled(self, head: bytes, stream: BinaryIO) -> Iterator[Pcm]:
        with tempfile.NamedTemporaryFile(prefix="bulkscribe-", suffix=self._suffix) as spool:
            feeder = _Feeder(head, stream)
            feeder.start_into(os.dup(spool.fileno()))
            try:
                watch = _Watch(self._options.stall_s, feeder)
                while feeder.is_alive():
                    feeder.join(watch.patience_s)
                    watch.check()
            finally:
                feeder.stop()
            feeder.raise_error()
            yield from self._decode(f"file:{spool.name}", None)

    def _decode(self, url: str, feeder: _Feeder | None) -> Iterator[Pcm]:
        log = FfmpegLog(url)
        size = max(1, round(self._options.block_s * self._rate)) * 2
        pending = bytearray()
        sought = self._glimpse is not None or (feeder is None and self._seekable(url))
        stretch = (self._start, self._end) if sought else None
        command = _command(url, self._selection, self._rate, stretch, self._glimpse)
        with _running(command, feeder) as process:
            chunks = _output(process, log, _Watch(self._options.stall_s, feeder))
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
        with _running(_command(url, self._selection, self._rate), None) as process:
            next(_output(process, log, _Watch(self._options.stall_s, None)), None)
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


def _command(
    url: str,
    selection: Selection,
    rate: int,
    sought: tuple[int, int | None] | None = None,
    glimpse: tuple[float, float] | None = None,
) -> list[str]:
    """Return the command that decodes the file from its start, or `sought`: from its first sample to its last.

    A `glimpse`, in seconds, needs not be exact.
    """
    window: dict[str, str | int] = {}
    if glimpse:
        window = {"ss": f"{glimpse[0]:.3f}", "t": f"{glimpse[1]:.3f}"}
        sought = None
    elif sought:
        begin_s, end = sought[0] / rate - RUN_UP_S, sought[1]
        window = {"ss": f"{begin_s:.6f}", **({} if end is None else {"t": f"{end / rate - begin_s:.6f}"})}
    if url.startswith("http:"):
        window["recv_buffer_size"] = _RECEIVED
    source = ffmpeg.input(
        "",
        protocol_whitelist=_PROTOCOLS[url[:4]],
        format_whitelist=DEMUXERS,
        threads=1,
        **window,
    )
    # The first audio track, not the one with most channels that ffmpeg would choose.
    only = {"af": f"pan=mono|c0=c{selection.channel}"} if selection.channel is not None else {}
    if sought:
        only["ss"] = str(RUN_UP_S)  # by the audio's own times: at times the first frame after a jump does not come
    target = source[f"a:{selection.track}"].output(
        "pipe:1", format="s16le", acodec="pcm_s16le", ac=1, ar=rate, vn=None, sn=None, dn=None, **only
    )
    program = [find_ffmpeg(), "-hide_banner", "-nostdin", "-nostats", "-loglevel", LOGLEVEL]
    command = list(target.compile(cmd=program))
    command[command.index("-i") + 1] = url  # put in afterwards: ffmpeg-python takes only names in UTF-8
    return command


@contextmanager
def _running(command: list[str], feeder: _Feeder | None) -> Iterator[subprocess.Popen[bytes]]:
    """Run ffmpeg; at the end it is gone, its pipes are closed and the feeder has ended, in whatever way we leave."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL if feeder is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, "AV_LOG_FORCE_NOCOLOR": "1", "no_proxy": "*"},  # it opens nothing beyond this machine
        process_group=0,  # Ctrl-C ends the job in its own way, not the audio in the middle
    )
    assert process.stdout
    assert process.stderr
    try:
        _confine(process.pid)
        if feeder is not None:
            assert process.stdin
            feeder.start_into(os.dup(process.stdin.fileno()))
            process.stdin.close()
        yield process
    finally:
        process.kill()
        process.stdout.close()
        process.stderr.close()
        process.wait()
        if feeder is not None:
            feeder.stop()


def _confine(pid: int) -> None:
    """Bound what a hostile file can make of ffmpeg: no files but its input, no dump of its memory, and not all of that.

    Set from outside, since code between fork and exec is not safe beside threads. ffmpeg has only just been started.
    """
    if sys.platform != "linux":  # which alone can do so
        return
    import resource

    with suppress(ProcessLookupError):  # it may have ended already
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, 0))
        resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0))
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (FILES, FILES))
        resource.prlimit(pid, resource.RLIMIT_AS, (MEMORY, MEMORY))


def _output(process: subprocess.Popen[bytes], log: FfmpegLog, watch: _Watch) -> Iterator[bytes]:
    """Yield what ffmpeg writes until it ends; its words go to `log`, always before the audio that they precede."""
    assert process.stdout
    assert process.stderr
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ, log)
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(watch.patience_s)
            for key, _ in sorted(ready, key=lambda item: item[0].data is None):
                data = os.read(key.fd, _CHUNK)
                if not data:
                    selector.unregister(key.fileobj)
                if key.data is not None:
                    log.feed(data)
                elif data:
                    yield data
                    watch.moved()
            watch.check()


class _Watch:
    """Measures how long nothing has moved: neither audio out of ffmpeg nor bytes into it."""

    def __init__(self, stall_s: float, feeder: _Feeder | None) -> None:
        self.patience_s = min(1.0, stall_s / 4)
        self._stall_s = stall_s
        self._feeder = feeder
        self._fed = 0
        self._since = time.monotonic()

    def moved(self) -> None:
        self._since = time.monotonic()

    def check(self) -> None:
        """Raise if the time is over: OpenError where the store is what everyone waits for."""
        if self._feeder is not None and self._feeder.fed != self._fed:
            self._fed = self._feeder.fed
            self.moved()
        if time.monotonic() - self._since < self._stall_s:
            return
        if self._feeder is not None and self._feeder.reading:
            raise OpenError("unavailable", f"the store gave nothing for {self._stall_s:g} s", retryable=True)
        raise DecodeError("stuck", f"ffmpeg made no progress for {self._stall_s:g} s")


class _Feeder(threading.Thread):
    """Carries a stream into ffmpeg's stdin or a file. It owns the target descriptor and closes it at the end."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        super().__init__(name="feed ffmpeg", daemon=True)  # a store that never answers must not keep the process
        self.fed = 0  # bytes delivered
        self.reading = False  # whether the store is what is waited for
        self._head = head
        self._stream = stream
        self._target = -1
        self._error: BaseException | None = None
        self._stopped = False

    def start_into(self, target: int) -> None:
        self._target = target
        self.start()

    def run(self) -> None:
        try:
            chunk = self._head or self._next()
            while chunk and self._deliver(chunk):
                chunk = self._next()
        except BaseException as error:  # noqa: BLE001 - handed to the reader of the audio, who raises it
            self._error = error
        finally:
            os.close(self._target)

    def raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End it: ffmpeg is gone, so a write fails at once; a read ends with the store's own time limits."""
        self._stopped = True
        self.join(1.0 if self.reading else None)

    def _next(self) -> bytes:
        self.reading = True
        try:
            return b"" if self._stopped else self._stream.read(_CHUNK)
        finally:
            self.reading = False

    def _deliver(self, chunk: bytes) -> bool:
        rest = memoryview(chunk)
        while rest:
            try:
                count = os.write(self._target, rest)
            except BrokenPipeError:  # ffmpeg has all that it wants, or has ended
                return False
            except OSError as error:
                raise UserError(
                    f"cannot write a temporary file: {error.strerror}", "set TMPDIR to a folder with more space"
                ) from error
            self.fed += count
            rest = rest[count:]
        return True


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
