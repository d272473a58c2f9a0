"""Training examples in Whisper's own token format, written as text.

    <|startofprev|> What was said before<|startoftranscript|><|en|><|transcribe|><|0.00|> Hello.<|1.40|><|endoftext|>

Duty: which tokens stand where, and times in steps of 0.02 s from the example's start. Any Whisper tokenizer that reads
special tokens makes ids of it. Knows no audio and no corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.clips import unspaced

STEP_S = 0.02
WINDOW_S = 30.0


@dataclass(frozen=True, slots=True)
class Line:
    """Text with its times, in seconds from the example's start. Without an end, the text is the next example's."""

    start: float
    end: float | None
    text: str


def transcript(lines: Sequence[Line], language: str, task: str, prompt: str | None = None) -> str:
    """Return an example with times. What begins in it and ends behind it gives its start only, as the last line."""
    said = "".join(
        stamp(line.start) + (f"{spaced(line.text)}{stamp(line.end)}" if line.end is not None else "") for line in lines
    )
    return f"{_before(prompt)}<|startoftranscript|><|{language}|><|{task}|>{said}<|endoftext|>"


def untimed(text: str, language: str, task: str, prompt: str | None = None) -> str:
    """Return an example of which only the text is known."""
    head = f"{_before(prompt)}<|startoftranscript|><|{language}|><|{task}|><|notimestamps|>"
    return f"{head}{spaced(text)}<|endoftext|>"


def nobody(prompt: str | None = None) -> str:
    """Return an example in which nobody speaks."""
    return f"{_before(prompt)}<|startoftranscript|><|nospeech|><|endoftext|>"


def stamp(seconds: float) -> str:
    """Return the token of a time."""
    return f"<|{min(max(round(seconds / STEP_S) * STEP_S, 0.0), WINDOW_S):.2f}|>"


def spaced(text: str) -> str:
    """Return a text as Whisper writes it: words begin with a space, where their script has one; no tokens."""
    plain = text.strip().replace("<|", "< |")
    return plain if not plain or unspaced(plain[0]) else f" {plain}"


def _before(prompt: str | None) -> str:
    return f"<|startofprev|>{spaced(prompt)}" if prompt else ""
