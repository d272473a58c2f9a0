"""Real speech of the examples as passages, and what an engine makes of it."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.decode import Decoder
from pipeline.types import SAMPLE_RATE, Passage, Pcm, Segment, Span, Transcript
from pipeline.whisper.engine import WhisperEngine
from pipeline.whisper.model import Whisper
from pipeline.whisper.options import WhisperOptions

EXAMPLES = Path(__file__).parents[1] / "examples" / "audio"
LANGUAGES = {
    "en_switchboard.mp3": "en",
    "es_centralita.opus": "es",
    "fr_standard.m4a": "fr",
    "it_centralino.flac": "it",
    "ru_kommutator.ogg": "ru",
}


def passage(name: str, language: str | None) -> Passage:
    """Return a whole example as one passage, all of it speech."""
    path = str(EXAMPLES / name)
    pcm = np.concatenate(list(Decoder(lambda: open(path, "rb"), path).blocks()))  # noqa: SIM115 (the decoder closes it)
    return Passage(name, 0, 0, pcm, (Span(0, len(pcm)),), language)


def with_options(engine: WhisperEngine, options: WhisperOptions) -> WhisperEngine:
    """Return an engine with other options on the same weights."""
    other = object.__new__(WhisperEngine)
    other.__dict__ |= engine.__dict__
    other.prepare(options)
    return other


def answers(engine: WhisperEngine, *passages: Passage) -> dict[str, Transcript]:
    return {transcript.recording_id: transcript for transcript in engine.transcribe(iter(passages)) if transcript}


@contextmanager
def passes(model: Whisper) -> Iterator[list[list[list[list[int]]]]]:
    """Note the tokens of each pass through the decoder: [pass][feed][row][position]."""
    seen: list[list[list[list[int]]]] = []
    hook = model.decoder.register_forward_pre_hook(
        lambda _, inputs: seen.append([feed.tokens.tolist() for feed in inputs[0]])
    )
    yield seen
    hook.remove()


def said(segments: tuple[Segment, ...]) -> list[tuple[float, float, str]]:
    return [(segment.start / SAMPLE_RATE, segment.end / SAMPLE_RATE, segment.text) for segment in segments]


def clip(one: Passage, seconds: int) -> Passage:
    pcm = one.pcm[: seconds * SAMPLE_RATE]
    return replace(one, pcm=pcm, spans=(Span(0, len(pcm)),))


def write_wav(path: Path, pcm: Pcm) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
        file.writeframes(pcm.tobytes())
    return path
