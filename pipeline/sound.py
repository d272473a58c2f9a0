"""The sound of a clip in numbers: noise, clipping, bandwidth, loudness, speech, the edges, and an estimate of quality.

Duty: samples in, numbers out; nothing here is a threshold. Loudness is ITU-R BS.1770 by pyloudnorm, speech is found by
Silero, quality is DNSMOS by the model that the wheel speechmos carries (it is not imported: that would load librosa).
Knows no texts, no tables and no files but the models'. Its libraries (extra `datasets`) are loaded with the first clip.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import warnings
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.edges import levels
from pipeline.errors import UserError, install
from pipeline.speech import SpeechOptions, detect
from pipeline.types import SAMPLE_RATE, Pcm

Floats = NDArray[np.float64]

FULL_SCALE = 32_768
EDGE_S = 0.03  # of the clip's start and end, that should be silent
_FRAME_S = 0.02
_QUIET, _LOUD = 5, 50  # percent of frames: noise is what the quietest are, speech what the louder half is
_CEILING_DB = 80.0  # no ratio is told beyond this: 16 bits hold no more
_TOUCHING = 32_700  # from here on a sample is at full scale
_FLAT = 3  # equal samples in a row near the peak are cut off
_NEAR_PEAK = 0.95
_FFT_S = 0.032
_BAND_HZ = 125.0  # in which the spectrum is looked at
_RISE_DB = 3.0  # by which speech stands out of the noise in a band
_BELOW_DB = 60.0  # below the strongest band, speech has no part in a band
_SPEECH = SpeechOptions(threshold=0.5, end_threshold=0.35, min_silence_ms=200, pad_ms=50, level_db=-25.0)
_MOS_SAMPLES = 144_160  # 9.01 s: what DNSMOS hears at once
_MOS_FIT = (-0.06766283, 1.11546468, 0.04602535)  # its authors' map of the model's answer to a mean opinion score


@dataclass(frozen=True, slots=True)
class Sound:
    """The numbers of a clip; None where there is too little audio to tell."""

    snr_db: float | None  # the louder half of its frames over the quietest twentieth
    clipped: float  # share of samples at full scale, or in flat tops
    bandwidth_hz: float | None  # highest frequency at which speech stands out of the noise
    loudness_lufs: float | None
    peak_db: float
    speech_share: float
    edge_db: float | None  # the louder edge's level under that of the speech: negative, and far below 0 in silence


def measure(audio: Pcm, rate: int) -> Sound:
    """Measure a clip: int16 [samples] of one channel."""
    level = levels(audio, max(1, round(_FRAME_S * rate)))
    peak = int(np.abs(audio.astype(np.int32)).max(initial=0))
    return Sound(
        snr_db=_snr(level),
        clipped=_clipped(audio, peak),
        bandwidth_hz=_bandwidth(audio, rate),
        loudness_lufs=_loudness(audio, rate),
        peak_db=20 * math.log10(max(peak, 1) / FULL_SCALE),
        speech_share=_speech_share(resampled(audio, rate)),
        edge_db=_edge(audio, rate, level),
    )


def quality(audio: Pcm, rate: int) -> float | None:
    """Return the estimated mean opinion score of the clip (DNSMOS P.835, overall), 1 to 5; None without its model.

    Longer clips are heard in windows of 9 s side by side (its authors move by 1 s: nine times the work), shorter ones
    are repeated, as there.
    """
    model = _mos_model()
    if model is None or not len(audio):
        return None
    heard = resampled(audio, rate).astype(np.float32) / FULL_SCALE
    heard = np.tile(heard, max(1, -(-_MOS_SAMPLES // len(heard))))
    starts = {*range(0, len(heard) - _MOS_SAMPLES, _MOS_SAMPLES), len(heard) - _MOS_SAMPLES}
    raw = [model.run(None, {"input_1": heard[None, at : at + _MOS_SAMPLES]})[0][0][2] for at in sorted(starts)]
    return float(np.mean(np.polyval(_MOS_FIT, raw)))


def resampled(audio: Pcm, rate: int) -> Pcm:
    """Return the audio at 16 kHz, for models."""
    if rate == SAMPLE_RATE:
        return audio
    signal = _library("scipy.signal")
    common = math.gcd(rate, SAMPLE_RATE)
    other = signal.resample_poly(audio.astype(np.float32), SAMPLE_RATE // common, rate // common)
    heard: Pcm = np.clip(np.rint(other), -FULL_SCALE, FULL_SCALE - 1).astype(np.int16)
    return heard


def _snr(level: Floats) -> float | None:
    """Return the ratio of signal to noise in dB, by levels of frames in dB.

    What is loud is speech with noise, so that noise is taken off it.
    """
    if len(level) < 25:
        return None
    power = 10 ** (level / 10)
    noise = power[level <= np.percentile(level, _QUIET)].mean()
    both = power[level >= np.percentile(level, _LOUD)].mean()
    return float(np.clip(10 * np.log10(max(both - noise, 1e-12) / noise), -10.0, _CEILING_DB))


def _clipped(audio: Pcm, peak: int) -> float:
    if not len(audio):
        return 0.0
    wide = np.abs(audio.astype(np.int32))
    cut = wide >= _TOUCHING
    near = (wide >= _NEAR_PEAK * peak) & (peak > FULL_SCALE // 10)
    same = near[1:] & near[:-1] & (audio[1:] == audio[:-1])  # a sample and the one before
    runs = same.copy()
    for _ in range(_FLAT - 2):
        runs = runs[1:] & same[: len(runs) - 1]
    for at in np.flatnonzero(runs):
        cut[at : at + _FLAT] = True
    return float(cut.mean())


def _bandwidth(audio: Pcm, rate: int) -> float | None:
    """Return the highest frequency at which loud frames have more than quiet ones, and not too little."""
    size = round(_FFT_S * rate)
    count = 2 * len(audio) // size - 1
    if count < 50:
        return None
    frames = np.lib.stride_tricks.sliding_window_view(audio, size)[:: size // 2].astype(np.float32)
    spectrum = np.square(np.abs(np.fft.rfft(frames * np.hanning(size).astype(np.float32)))).astype(np.float64)
    width = max(1, round(_BAND_HZ * size / rate))
    bands = spectrum.shape[1] // width
    power = spectrum[:, : bands * width].reshape(len(spectrum), bands, width).mean(axis=2)
    total = power.sum(axis=1)
    loud = power[total >= np.percentile(total, _LOUD)].mean(axis=0)
    quiet = power[total <= np.percentile(total, _QUIET)].mean(axis=0)
    floor = loud.max() / 10 ** (_BELOW_DB / 10)
    heard = np.flatnonzero((loud > floor) & (loud > quiet * 10 ** (_RISE_DB / 10)))
    return float(min((heard[-1] + 1) * width * rate / size, rate / 2)) if len(heard) else 0.0


def _loudness(audio: Pcm, rate: int) -> float | None:
    """Return the integrated loudness in LUFS; None for silence, and under the 0.4 s that its definition wants."""
    if len(audio) <= 0.4 * rate:
        return None
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore")  # of silent blocks
        loudness = float(_meter(rate).integrated_loudness(audio.astype(np.float64) / FULL_SCALE))
    return loudness if math.isfinite(loudness) else None


def _speech_share(pcm: Pcm) -> float:
    found = sum(len(span) for heard in detect([pcm], _SPEECH) for span in heard.spans)
    return min(1.0, found / len(pcm)) if len(pcm) else 0.0


def _edge(audio: Pcm, rate: int, level: Floats) -> float | None:
    if not len(level):
        return None
    loud = 10 * np.log10((10 ** (level[level >= np.percentile(level, _LOUD)] / 10)).mean())
    width = max(1, round(EDGE_S * rate))
    outer = max(float(levels(part, len(part))[0]) for part in (audio[:width], audio[-width:]))
    return float(np.clip(outer - loud, -_CEILING_DB, _CEILING_DB))


@lru_cache(maxsize=16)
def _meter(rate: int) -> Any:
    return _library("pyloudnorm").Meter(rate)


@lru_cache(maxsize=1)
def _mos_model() -> Any:
    package = importlib.util.find_spec("speechmos")
    for folder in (package and package.submodule_search_locations) or []:
        path = Path(folder, "dnsmos_models", "sig_bak_ovr.onnx")
        if path.is_file():
            import onnxruntime

            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.log_severity_level = 3
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return None


def _library(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(f"measuring audio needs {error.name}, which is not installed", install("datasets")) from error
