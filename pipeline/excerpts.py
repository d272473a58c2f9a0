"""A stretch of a recording -> a small MP3 as a data URI, which any browser plays out of the page.

Duty: read the audio again where it is, cut, encode. Knows no page. Reads a recording from its start up to the stretch.
"""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import PurePosixPath

import numpy as np

from pipeline import storage
from pipeline.decode import DecodeOptions, Decoder, Selection, find_ffmpeg
from pipeline.errors import DecodeError
from pipeline.types import SAMPLE_RATE, Pcm

BITRATE = "32k"  # 4 kB a second: enough to judge a text by
_BLOCK = DecodeOptions(block_s=2.0)


def excerpt(uri: str, start_s: float, end_s: float, selection: str = "mix") -> str:
    """Return the stretch as `data:audio/mpeg;base64,...`. Raises DataError where the audio cannot be had any more."""
    opener = partial(storage.open_audio, uri)
    suffix = PurePosixPath(uri).suffix
    decoder = Decoder(opener, storage.local_path(uri), _BLOCK, _selection(selection), suffix=suffix)
    pcm = _stretch(decoder.blocks(), round(start_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE))
    if not len(pcm):
        raise DecodeError("empty", "the recording is shorter now")
    return "data:audio/mpeg;base64," + base64.b64encode(_mp3(pcm)).decode()


def _stretch(blocks: Iterator[Pcm], start: int, end: int) -> Pcm:
    found, at = [], 0
    for block in blocks:
        found.append(block[max(0, start - at) : max(0, end - at)])
        at += len(block)
        if at >= end:
            break
    return np.concatenate(found) if found else np.zeros(0, np.int16)


def _selection(name: str) -> Selection:
    """Return what `Selection.name` called so."""
    words = name.split()
    number = {key: int(value) for key, value in pairwise(words) if value.isdecimal()}
    return Selection(number.get("track", 0), number.get("channel"))


def _mp3(pcm: Pcm) -> bytes:
    # -f s16le: our own samples, no file of anybody's
    command = [find_ffmpeg(), "-hide_banner", "-nostdin", "-loglevel", "error", "-f", "s16le", "-ar", str(SAMPLE_RATE)]
    command += ["-ac", "1", "-i", "pipe:0", "-b:a", BITRATE, "-map_metadata", "-1", "-f", "mp3", "pipe:1"]
    return subprocess.run(command, input=pcm.tobytes(), capture_output=True, check=True).stdout
