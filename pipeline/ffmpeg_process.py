"""One process of ffmpeg: its command, its bounds, what feeds it, what comes out of it, and that it ends.

Duty: run ffmpeg on one file, by name or by stream, and watch it. What a file can make it do is bounded: it opens that
one file only, by a list of demuxers that follow no references (no playlists, no scripts, no network), and decodes audio
only. Knows no recordings and does not judge what came out.
"""

from __future__ import annotations

import os
import selectors
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

import ffmpeg

from pipeline.errors import DecodeError, OpenError, UserError
from pipeline.ffmpeg_log import LOGLEVEL, FfmpegLog
from pipeline.selection import Selection

# Containers of audio and video that hold their own data. What is missing here on purpose: hls, dash, concat, sdp and
# other scripts and playlists that name further files; images; devices; text.
DEMUXERS = (
    "aac,ac3,aiff,alaw,amr,amrnb,amrwb,ape,asf,au,avi,caf,codec2,dsf,dts,dtshd,eac3,flac,flv,g722,g726,gsm,iff,ircam,"
    "loas,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,mulaw,mxf,nut,oga,ogg,oma,qcp,rm,shn,sln,sox,"
    "tak,truehd,tta,voc,w64,wav,wv,xwma"
)
RUN_UP_S = 1  # decoded before a stretch that is sought: codecs take some frames to be themselves again
MEMORY = 4 << 30  # bytes of address space for ffmpeg, which takes a tenth of it; long files' indexes take more
FILES = 64  # open ones
CHUNK = 262_144  # bytes read from a store, and from ffmpeg, at a time
_PROTOCOLS = {"pipe": "pipe", "file": "file", "subf": "subfile,file", "http": "http,tcp"}
_RECEIVED = 65_536  # bytes that wait for ffmpeg in its socket: what it never reads is read from the store in vain


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


def command_line(
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
def running(command: list[str], feeder: Feeder | None) -> Iterator[subprocess.Popen[bytes]]:
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


def output(process: subprocess.Popen[bytes], log: FfmpegLog, watch: Watch) -> Iterator[bytes]:
    """Yield what ffmpeg writes until it ends; its words go to `log`, always before the audio that they precede."""
    assert process.stdout
    assert process.stderr
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ, log)
        selector.register(process.stdout, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(watch.patience_s)
            for key, _ in sorted(ready, key=lambda item: item[0].data is None):
                data = os.read(key.fd, CHUNK)
                if not data:
                    selector.unregister(key.fileobj)
                if key.data is not None:
                    log.feed(data)
                elif data:
                    yield data
                    watch.moved()
            watch.check()


class Watch:
    """Measures how long nothing has moved: neither audio out of ffmpeg nor bytes into it."""

    def __init__(self, stall_s: float, feeder: Feeder | None) -> None:
        self.patience_s = min(1.0, stall_s / 4)
        self._stall_s = stall_s
        self._feeder = feeder
        self._fed = 0
        self._since = time.monotonic()

    def moved(self) -> None:
        """Take note that something did."""
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


class Feeder(threading.Thread):
    """Carries a stream into ffmpeg's stdin or a file. It owns the target descriptor and closes it at the end."""

    def __init__(self, head: bytes, stream: BinaryIO, most: int, folder: str | None = None) -> None:
        """Carry at most so many bytes; behind them stands a DecodeError (`too_large`).

        Into a file in `folder` at most as many as are left free there, so that it is never full however many do so.
        """
        super().__init__(name="feed ffmpeg", daemon=True)  # a store that never answers must not keep the process
        self.fed = 0  # bytes delivered
        self._most, self._folder = most, folder
        self.reading = False  # whether the store is what is waited for
        self._head = head
        self._stream = stream
        self._target = -1
        self._error: BaseException | None = None
        self._stopped = False

    def start_into(self, target: int) -> None:
        """Begin; the descriptor `target` is the thread's from now on."""
        self._target = target
        self.start()

    def run(self) -> None:
        """Carry until either end has enough."""
        try:
            chunk = self._head or self._next()
            while chunk and self._deliver(chunk):
                self._bound()
                chunk = self._next()
        except BaseException as error:  # noqa: BLE001 - handed to the reader of the audio, who raises it
            self._error = error
        finally:
            os.close(self._target)

    def raise_error(self) -> None:
        """Raise what went wrong with the stream or the target."""
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End it: ffmpeg is gone, so a write fails at once; a read ends with the store's own time limits."""
        self._stopped = True
        self.join(1.0 if self.reading else None)

    def _bound(self) -> None:
        gone_on = f"it goes on after {self.fed / 1e9:.3g} GB"
        if self.fed > self._most:
            raise DecodeError("too_large", gone_on)
        if self._folder is not None and self.fed > shutil.disk_usage(self._folder).free:
            why = "all of such a file has to lie in TMPDIR, where no more than that is left free"
            raise DecodeError("too_large", f"{gone_on}, and {why}", retryable=True)

    def _next(self) -> bytes:
        self.reading = True
        try:
            return b"" if self._stopped else self._stream.read(CHUNK)
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
