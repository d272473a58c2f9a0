"""Speakers -> RTTM (NIST, Rich Transcription 2009 evaluation plan, appendix A): what toolkits for diarization read.

Knows rows of `schemas.speakers` only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any


def rttm(name: str, speakers: Iterable[Mapping[str, Any]]) -> str:
    """Return a line a turn, in the order of their starts: times in seconds; blanks in names become underscores.

    Who speaks where nothing was understood has turns, too, and turns of two speakers may overlap.
    """
    turns = sorted((turn["start"], turn["end"], _word(one["speaker"])) for one in speakers for turn in one["turns"])
    file = _word(name)
    return "".join(
        f"SPEAKER {file} 1 {start:.3f} {end - start:.3f} <NA> <NA> {speaker} <NA> <NA>\n"
        for start, end, speaker in turns
    )


def _word(text: str) -> str:
    return re.sub(r"\s+", "_", text)
