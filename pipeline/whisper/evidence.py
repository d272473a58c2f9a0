"""How much of a text the audio has said: the decoder's surprise with the audio, against that with silence.

Invented text is as likely without the audio as with it. Knows tokens and the network; no segments, no thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.whisper.mel import WINDOW_FRAMES, log_mel
from pipeline.whisper.model import CACHE_STEP, Feed, Whisper

ROWS = 128  # tokens whose logits are in memory at a time: 27 MB of float32


@dataclass(frozen=True)
class Claim:
    """A window's text as it was decoded."""

    prompt: list[int]  # all before the first token
    tokens: list[int]  # timestamps included
    audio: Tensor  # cross keys and values [L, 2, H, A, E]


@torch.inference_mode()
def silence(model: Whisper) -> Tensor:
    """Return the cross keys and values of 30 s of zero samples: [L, 2, 1, H, A, E]."""
    device = model.decoder.positions.device
    mel = log_mel(torch.zeros(1, dtype=torch.int16, device=device), model.dims.mel_bands)[:, :WINDOW_FRAMES]
    return model.decoder.audio(model.encoder(mel[None].to(model.dtype)))


@torch.inference_mode()
def weigh(model: Whisper, claims: Sequence[Claim], quiet: Tensor) -> list[Tensor]:
    """Return for each claim log p(token | audio) and log p(token | silence) of its tokens: float32 [2, T], nats.

    Both from raw logits over the whole vocabulary, with the same prompt and the same tokens before each.
    """
    device = model.decoder.positions.device
    longest = max(len(one.prompt) + len(one.tokens) - 1 for one in claims)
    fed = torch.zeros((len(claims), longest), dtype=torch.int64)
    for row, one in enumerate(claims):
        inputs = (one.prompt + one.tokens)[:-1]
        fed[row, : len(inputs)] = torch.tensor(inputs)
    fed = fed.to(device)
    positions = torch.arange(longest, device=device).expand(len(claims), -1)
    heard = torch.stack([one.audio for one in claims], 2)
    feeds = [
        Feed(fed, positions, _cache(model, len(claims), longest), audio, longest)
        for audio in (heard, quiet.expand(-1, -1, len(claims), -1, -1, -1))
    ]
    both = model.decoder(feeds)
    return [torch.stack([_logprobs(model, hidden[row], one) for hidden in both]) for row, one in enumerate(claims)]


def _cache(model: Whisper, rows: int, longest: int) -> Tensor:
    return model.new_cache(rows, CACHE_STEP * math.ceil(longest / CACHE_STEP))


def _logprobs(model: Whisper, hidden: Tensor, claim: Claim) -> Tensor:
    """hidden [T', D] of all inputs -> the log-probability of each of the claim's tokens [T]."""
    begin = len(claim.prompt) - 1
    wanted = torch.tensor(claim.tokens, device=hidden.device)
    spoken, parts = hidden[begin : begin + len(wanted)], []
    for states, tokens in zip(torch.split(spoken, ROWS), torch.split(wanted, ROWS), strict=True):
        logits = model.decoder.logits(states)
        parts.append(logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(1))
    return torch.cat(parts)
