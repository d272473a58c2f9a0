"""How much of a text the audio has said: the decoder's surprise with the audio, against that with silence.

Invented text is as likely without the audio as with it. Knows tokens and the network; no segments, no thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pipeline.whisper.mel import WINDOW_FRAMES, log_mel
from pipeline.whisper.model import CACHE_STEP, Feed, Whisper

ROWS = 32  # tokens whose logits are made at a time: they fit a CPU's cache, 7 MB of float32


class Weight(NamedTuple):
    """A token's log-probability with the audio, and with silence, in nats."""

    heard: float
    quiet: float


@dataclass(frozen=True)
class Sums:
    """What a segment's tokens weigh together, in nats."""

    evidence: float
    per_token: float
    logprob: float  # a token, with the audio


def sums(weights: Sequence[Weight]) -> Sums | None:
    """Return what tokens weigh together; None for none."""
    if not weights:
        return None
    evidence, count = sum(one.heard - one.quiet for one in weights), len(weights)
    return Sums(evidence, evidence / count, sum(one.heard for one in weights) / count)


@dataclass(frozen=True)
class Claim:
    """A window's text as it was decoded."""

    prompt: list[int]  # all before the first token
    tokens: list[int]  # timestamps included
    eot: int  # text tokens are those below it
    audio: Tensor  # cross keys and values [L, 2, H, A, E]


@torch.inference_mode()
def silence(model: Whisper) -> Tensor:
    """Return the cross keys and values of 30 s of zero samples: [L, 2, 1, H, A, E]."""
    device = model.decoder.positions.device
    mel = log_mel(torch.zeros(1, dtype=torch.int16, device=device), model.dims.mel_bands)[:, :WINDOW_FRAMES]
    return model.decoder.audio(model.encoder(mel[None].to(model.dtype)))


@torch.inference_mode()
def weigh(model: Whisper, claims: Sequence[Claim], quiet: Tensor) -> list[Tensor]:
    """Return for each claim log p(token | audio) and log p(token | silence) of its text tokens: float32 [2, T], nats.

    Both from raw logits over the whole vocabulary, with the same prompt and the same tokens before each.
    """
    batches = (claims[at : at + model.batch] for at in range(0, len(claims), model.batch))
    return [found for batch in batches for found in _weigh(model, batch, quiet)]


def _weigh(model: Whisper, claims: Sequence[Claim], quiet: Tensor) -> list[Tensor]:
    device = model.decoder.positions.device
    longest = max(len(one.prompt) + len(one.tokens) - 1 for one in claims)
    fed = torch.zeros((len(claims), longest), dtype=torch.int64)
    for row, one in enumerate(claims):
        inputs = (one.prompt + one.tokens)[:-1]
        fed[row, : len(inputs)] = torch.tensor(inputs)
    fed = fed.to(device)
    positions = torch.arange(longest, device=device).expand(len(claims), -1)
    heard = torch.stack([one.audio for one in claims], 2) if len(claims) > 1 else claims[0].audio[:, :, None]
    feeds = [
        Feed(fed, positions, _cache(model, len(claims), longest), audio, longest)
        for audio in (heard, quiet.expand(-1, -1, len(claims), -1, -1, -1))
    ]
    both = torch.stack(model.decoder(feeds))  # [2, N, T', D]
    return [_logprobs(model, both[:, row], one) for row, one in enumerate(claims)]


def _cache(model: Whisper, rows: int, longest: int) -> Tensor:
    return model.new_cache(rows, CACHE_STEP * math.ceil(longest / CACHE_STEP))


def _logprobs(model: Whisper, hidden: Tensor, claim: Claim) -> Tensor:
    """hidden [2, T', D] of all inputs -> the log-probabilities of the claim's text tokens [2, T]."""
    before = len(claim.prompt) - 1
    places = [before + at for at, token in enumerate(claim.tokens) if token < claim.eot]
    states = hidden[:, places]
    text = torch.tensor([token for token in claim.tokens if token < claim.eot], device=hidden.device)
    each = zip(torch.split(states.flatten(0, 1), ROWS), torch.split(text.repeat(2), ROWS), strict=True)
    return torch.cat([_of(model.decoder.logits(some), tokens) for some, tokens in each]).view(2, -1)


def _of(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-probability of a token each: logits [M, vocabulary], which are lost, and tokens [M] -> [M]."""
    highest = logits.amax(1, keepdim=True)
    chosen = logits.gather(1, tokens[:, None]) - highest
    total = logits.sub_(highest).exp_().sum(1, keepdim=True)  # logsumexp makes copies, and takes twice as long
    return (chosen - total.log())[:, 0]
