"""A stretch of a recording -> a small MP3 as a data URI, which any browser plays out of the page.

Duty: read the audio again where it is, cut, encode. Knows no page.
"""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Mapping
from typing import Any

import numpy as np

from pipeline.errors import DecodeError
from pipeline.ffmpeg_process import find_ffmpeg
from pipeline.reopening import open_audio
from pipeline.types import SAMPLE_RATE, Pcm

BITRATE = "32k"  # 4 kB a second: enough to judge a text by


def excerpt(recording: Mapping[str, Any], start_s: float, end_s: float) -> str:
    """Return the stretch as `data:audio/mpeg;base64,...`. Raises DataError where the audio cannot be had any more.

    `recording` is a row of `OUT/recordings`, of which `uri`, `version` and `selection` are needed.
    """
    stretch = round(start_s * SAMPLE_RATE), round(end_s * SAMPLE_RATE)
    blocks = list(open_audio(recording, SAMPLE_RATE, stretch).blocks())
    pcm = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
    if not len(pcm):
        raise DecodeError("empty", "the recording is shorter now")
    return "data:audio/mpeg;base64," + base64.b64encode(_mp3(pcm)).decode()


def _mp3(pcm: Pcm) -> bytes:
    # -f s16le: our own samples, no file of anybody's
    command = [find_ffmpeg(), "-hide_banner", "-nostdin", "-loglevel", "error", "-f", "s16le", "-ar", str(SAMPLE_RATE)]
    command += ["-ac", "1", "-i", "pipe:0", "-b:a", BITRATE, "-map_metadata", "-1", "-f", "mp3", "pipe:1"]
    return subprocess.run(command, input=pcm.tobytes(), capture_output=True, check=True).stdout
