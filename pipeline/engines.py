"""Engines by name, and one that ships for tests and scale runs. Knows no model: `whisper/` is loaded when asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError
from pipeline.types import SAMPLE_RATE, Attempt, Engine, Look, Passage, Segment, Transcript, Voice
from pipeline.voices.options import VoiceOptions
from pipeline.whisper.options import WhisperOptions

FAKE = "fake"
TALE_RATE = 15  # characters a second
TALE = (
    "Nobody listened to it, and what follows is only here to fill the time that a speaker would have taken:"
    " a harbour in the fog, boats that come in before dawn, an old man who counts crates, gulls, a bell,"
    " two women who laugh about the price of herring, a child asleep on a heap of nets, and far out the light"
    " of a ship that nobody expects, blinking slowly, as if it knew that the whole town would talk about it."
)
WINDOW = 30 * SAMPLE_RATE  # what a Whisper model takes at once; less than a window costs as much as a whole one


@dataclass(frozen=True)
class FakeEngine:
    """Answers each speech span with a sentence about it, without listening. The same passage gets the same answer.

    It takes the time of an engine that decodes its windows in a batch: so long for each window of 30 s, begun or whole.
    """

    window_s: float = 0.0  # seconds that a window takes; a GPU that decodes 100 windows a second takes 0.01

    def transcribe(self, passages: Iterable[Passage | None]) -> Iterator[Transcript | None]:
        """See `pipeline.types.Engine`."""
        for passage in passages:
            if passage is None:
                continue
            if self.window_s:
                time.sleep(self.window_s * -(-len(passage.pcm) // WINDOW))
            language = passage.language or "en"
            segments = tuple(
                Segment(
                    start=span.start,
                    end=span.end,
                    text=_sentence(len(span) / SAMPLE_RATE),
                    language=language,
                    language_probability=1.0,
                    task="transcribe",
                    avg_logprob=-0.25,
                    compression_ratio=1.0,
                    no_speech_prob=0.0,
                    temperature=0.0,
                    attempts=(Attempt(0.0, -0.25, 1.0),),
                    evidence=100.0,
                    evidence_per_token=5.0,
                    text_logprob=-0.25,
                    unlikely_share=0.0,
                )
                for span in passage.spans
            )
            yield Transcript(passage.recording_id, passage.index, passage.span, passage.spans, segments, language, 1.0)

    def screen(self, passages: Iterable[Passage | None]) -> Iterator[Look | None]:
        """See `pipeline.types.Engine`."""
        for passage in passages:
            if passage is not None:
                languages = ((passage.language or "en", 1.0),)
                speech = sum(map(len, passage.spans))
                yield Look(passage.recording_id, passage.index, passage.span, speech, 0.0, languages)


def _sentence(seconds: float) -> str:
    """Return about as much text as people say in the time, so that nothing seems to be missing."""
    return f"Speech of {seconds:.2f} seconds. {TALE[: round(TALE_RATE * seconds)]}".strip()


def load_engine(options: WhisperOptions) -> Engine:
    """Load the engine that `options.model` names. UserError when it cannot be had.

    `fake` is FakeEngine, `fake:0.01` one that takes 10 ms a window; all else is a Whisper model.
    """
    if is_fake(options.model):
        return FakeEngine(_window_s(options.model))
    from pipeline.whisper.engine import WhisperEngine  # loads torch

    return WhisperEngine(options)


def load_listener(voices: VoiceOptions, options: WhisperOptions) -> Callable[[Passage], tuple[Voice, ...]]:
    """Load what tells the voices of a passage apart, onto the engine's device. UserError when it cannot be had."""
    from pipeline.voices.weights import load  # loads torch

    return load(voices, "cpu" if is_fake(options.model) else options.device)


def is_fake(model: str) -> bool:
    """Say whether a model's name asks for FakeEngine."""
    return model == FAKE or model.startswith(FAKE + ":")


def _window_s(model: str) -> float:
    text = model.partition(":")[2] or "0"
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{model} is no model: {text} is not a time", "for example fake:0.01") from None


def describe_voices(voices: VoiceOptions) -> dict[str, Any]:
    """Return what tells these models of speakers from others, without loading them. UserError when absent."""
    from pipeline.voices.weights import describe

    return describe(voices)


def describe(options: WhisperOptions) -> dict[str, Any]:
    """Return what tells this model from others (its weights' SHA-256), without loading it. UserError when absent."""
    if is_fake(options.model):
        return {"weights_sha256": ""}
    from pipeline.whisper.locate import locate

    return {"weights_sha256": locate(options.model).fingerprint()}


def languages(options: WhisperOptions) -> frozenset[str] | None:
    """Return the codes of the languages that the model knows; None for one that takes all. UserError when absent."""
    if is_fake(options.model):
        return None
    from pipeline.whisper.locate import locate
    from pipeline.whisper.tokens import Tokens

    return frozenset(Tokens(locate(options.model).tokenizer).language_codes)


def check(options: WhisperOptions, codes: set[str]) -> None:
    """UserError for a forced language or suppressed token that the model does not have, and for too long a prefix."""
    if is_fake(options.model):
        return
    from pipeline.whisper.locate import locate
    from pipeline.whisper.tokens import Tokens

    tokens = Tokens(locate(options.model).tokenizer)
    for code in sorted(codes):
        tokens.language_token(code)
    tokens.suppressed(options.suppress_tokens)
    tokens.prefix(options.prefix)
