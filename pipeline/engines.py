"""Engines by name, and one that ships for tests and scale runs. Knows no model: `whisper/` is loaded when asked for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.types import SAMPLE_RATE, Attempt, Engine, Passage, Segment, Transcript
from pipeline.whisper.options import WhisperOptions

FAKE = "fake"


@dataclass(frozen=True)
class FakeEngine:
    """Answers each speech span with a sentence about it, without listening. The same passage gets the same answer."""

    seconds_per_window: float = 0.0  # time that 30 s of audio take

    def transcribe(self, passages: Iterable[Passage | None]) -> Iterator[Transcript | None]:
        """See `pipeline.types.Engine`."""
        for passage in passages:
            if passage is None:
                continue
            time.sleep(self.seconds_per_window * len(passage.pcm) / (30 * SAMPLE_RATE))
            language = passage.language or "en"
            segments = tuple(
                Segment(
                    start=span.start,
                    end=span.end,
                    text=f"Speech of {len(span) / SAMPLE_RATE:.2f} seconds.",
                    language=language,
                    language_probability=1.0,
                    task="transcribe",
                    avg_logprob=-0.25,
                    compression_ratio=1.0,
                    no_speech_prob=0.0,
                    temperature=0.0,
                    attempts=(Attempt(0.0, -0.25, 1.0),),
                )
                for span in passage.spans
            )
            yield Transcript(passage.recording_id, passage.index, passage.span, passage.spans, segments, language, 1.0)


def load_engine(options: WhisperOptions) -> Engine:
    """Load the engine that `options.model` names: `fake`, or a Whisper model. UserError when it cannot be had."""
    if options.model == FAKE:
        return FakeEngine()
    from pipeline.whisper.engine import WhisperEngine  # loads torch

    return WhisperEngine(options)


def describe(options: WhisperOptions) -> dict[str, Any]:
    """Return what tells this model from others (its weights' SHA-256), without loading it. UserError when absent."""
    if options.model == FAKE:
        return {"weights_sha256": ""}
    from pipeline.whisper.locate import locate

    return {"weights_sha256": locate(options.model).fingerprint()}


def check_languages(options: WhisperOptions, codes: set[str]) -> None:
    """UserError when the model does not know one of the forced languages."""
    if options.model == FAKE or not codes:
        return
    from pipeline.whisper.locate import locate
    from pipeline.whisper.tokens import Tokens

    tokens = Tokens(locate(options.model).tokenizer)
    for code in sorted(codes):
        tokens.language_token(code)
