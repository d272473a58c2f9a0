"""What ffmpeg says on stderr, read as it comes: the media that it found, and the words of its errors.

Duty: the wording of ffmpeg 4.2 to 9, run with `-loglevel level+info`. Knows no process and no audio. Memory is
bounded however much a broken file makes ffmpeg say.
"""

from __future__ import annotations

import re

from pipeline.types import Media

LOGLEVEL = "level+info"  # each line with its level: an error is known by that, not by its wording

_LINE = re.compile(
    r"(?:\[[^\]]* @ 0x[0-9a-f]+\] ?)*\[(quiet|panic|fatal|error|warning|info|verbose|debug)\] (.*)", re.S
)
_INPUT = re.compile(r"Input #0, (\S+), from ")
_STREAM = re.compile(r"\s*Stream #0:\d+.*?: (Audio|Video|Subtitle|Data|Attachment): (.*)", re.S)
_DURATION = re.compile(r"\s*Duration: (\d+):(\d\d):(\d\d(?:\.\d+)?)(?:, start: (\d+\.\d+))?")
# Of what was cut from a longer recording, or recorded in the middle of a stream, these tell the time of the end; for
# Vorbis in an Ogg, ffmpeg has taken the beginning from it. It does not see that FLAC in an Ogg begins late, nor an AVI.
_END_IS_TOLD = frozenset({"matroska,webm", "ogg", "asf", "nut"})
_ALONE_TOLD = ("ogg", "vorbis")
_CODEC = re.compile(r"[\w-]+")
_RATE = re.compile(r"\b(\d+) Hz(?:, ([^,\n]+))?")
_COUNTED = re.compile(r"(\d+) channels")
_AMBISONIC = re.compile(r"ambisonic (\d+)")
_DOTTED = re.compile(r"\d+(?:\.\d+)+")
_NAMED = {
    "mono": 1,
    "stereo": 2,
    "downmix": 2,
    "binaural": 2,
    "quad": 4,
    "hexagonal": 6,
    "octagonal": 8,
    "cube": 8,
    "hexadecagonal": 16,
}
# Lines that only say again, around the cause, that something ended.
_ECHO = re.compile(
    r"Error opening input files?\b(?!:)|Error opening output file|Failed to set value |Error parsing options for "
    r"|Conversion failed!|Error marking filters as finished|Task finished with error code|Terminating thread with"
    r"|Nothing was written into output"
)
_OPENING = re.compile(r"Error opening input(?: files)?: ")
_UNLISTED = re.compile(r"Format not on whitelist '.*'")
_ESTIMATED = re.compile(r"Estimating duration from bitrate")
_BROKE_OFF = "Error during demuxing: "  # of newer ffmpegs; with older ones the input's name stands there
_PICTURE = re.compile(r"Video: .*\(attached pic\)")
_LONGEST = 16_384  # characters kept of a line
_STREAMS = 1000  # remembered of each kind
_FIRST, _LAST = 2, 2  # distinct errors kept from either end


class FfmpegLog:
    """Takes the bytes of stderr; afterwards, and in between, says what they meant."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._rest = b""
        self._entry = ""  # the line that is being collected: what follows without a level belongs to it
        self._in_header = False
        self._container: str | None = None
        self._told_s: tuple[float, float] | None = None  # duration and start
        self._estimated = False  # which ffmpeg says before it says the length
        self._audio: list[str] = []
        self._others: list[str] = []
        self._first: list[str] = []
        self._last: list[str] = []
        self.broke_off = False  # whether reading ended at an error, and not at the input's end

    def feed(self, data: bytes) -> None:
        """Take the next bytes; an empty `data` ends the log."""
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()[:_LONGEST]
        for line in lines:
            self._line(line.decode("utf-8", "surrogateescape"))
        if not data:
            self._line(self._rest.decode("utf-8", "surrogateescape"))
            self._close_entry()

    @property
    def media(self) -> Media:
        """What the input's header says, as far as it was said."""
        codec = rate = channels = None
        if self._audio:
            found = _CODEC.match(self._audio[0])
            codec = found[0] if found and found[0] != "none" else None
            hertz = _RATE.search(self._audio[0])
            rate = int(hertz[1]) if hertz else None
            channels = _channels(hertz[2] or "") if hertz else None
        stated_s = None if self._told_s is None else self._told_s[0]
        if self._told_s and self._container in _END_IS_TOLD and (self._container, codec) != _ALONE_TOLD:
            stated_s = max(0.0, self._told_s[0] - self._told_s[1])
        return Media(self._container, codec, rate, channels, len(self._audio) or None, stated_s)

    @property
    def opened(self) -> bool:
        """Whether ffmpeg knew what the input is."""
        return self._container is not None

    @property
    def other_streams(self) -> tuple[str, ...]:
        """What is in the container beside audio, in ffmpeg's words."""
        return tuple(self._others)

    @property
    def promised_s(self) -> float | None:
        """How long the audio is by an index or a count in the container, in seconds; None where that is not known.

        The length of a file is that of its longest stream: with video or several audio tracks it says nothing of one.
        """
        return self.media.stated_s if self.alone and not self._estimated else None

    @property
    def alone(self) -> bool:
        """Whether there is one audio track, and nothing else that has a time of its own."""
        moving = [stream for stream in self._others if stream.startswith("Video") and not _PICTURE.match(stream)]
        return len(self._audio) == 1 and not moving

    @property
    def damaged(self) -> bool:
        """Whether ffmpeg complained of errors."""
        return bool(self._first)

    @property
    def words(self) -> str:
        """The errors, first and last ones, without paths and addresses; "" if there were none."""
        return "; ".join(dict.fromkeys(self._first + self._last))

    def _line(self, line: str) -> None:
        if _LINE.match(line):
            self._close_entry()
            self._entry = line[:_LONGEST]
        elif len(self._entry) < _LONGEST:
            self._entry += "\n" + line

    def _close_entry(self) -> None:
        entry, self._entry = self._entry, ""
        match = _LINE.match(entry)
        if match is None:
            return
        level, text = match.groups()
        if level == "info":
            self._info(text)
        elif level == "warning":
            self._estimated = self._estimated or bool(_ESTIMATED.match(text))
        elif level in ("error", "fatal", "panic"):
            self._error(text)

    def _info(self, text: str) -> None:
        if started := _INPUT.match(text):
            self._in_header = True
            self._container = started[1]
        elif text.startswith(("Stream mapping:", "Output #0")):
            self._in_header = False
        elif not self._in_header:
            return
        elif stream := _STREAM.match(text):
            kind, words = stream.groups()
            kept = self._audio if kind == "Audio" else self._others
            if len(kept) < _STREAMS:
                kept.append(words if kind == "Audio" else _text(f"{kind}: {words}"))
        elif (length := _DURATION.match(text)) and self._told_s is None:
            hours, minutes, seconds, start = length.groups()
            self._told_s = int(hours) * 3600 + int(minutes) * 60 + float(seconds), float(start or 0)

    def _error(self, text: str) -> None:
        text = text.partition("\n    Last message repeated")[0].partition("\nTo ignore this")[0]
        if _ECHO.match(text):
            return
        self.broke_off = self.broke_off or text.startswith((_BROKE_OFF, f"{self._url}: "))
        text = _UNLISTED.sub("no container of audio or video", text)
        words = _text(_OPENING.sub("", text.replace(f"{self._url}: ", "").replace(self._url, "the input")))
        if not words or words in self._first or words in self._last:
            return
        if len(self._first) < _FIRST:
            self._first.append(words)
        else:
            self._last = [*self._last, words][-_LAST:]


def _text(raw: str) -> str:
    return raw.strip()[:500].encode("utf-8", "replace").decode()


def _channels(layout: str) -> int | None:
    if counted := _COUNTED.match(layout):
        return int(counted[1])
    if ambisonic := _AMBISONIC.match(layout):
        return (int(ambisonic[1]) + 1) ** 2
    if dotted := _DOTTED.match(layout):  # "5.1(side)": the parts add up
        return sum(map(int, dotted[0].split(".")))
    return _NAMED.get(layout.partition("(")[0].strip())
