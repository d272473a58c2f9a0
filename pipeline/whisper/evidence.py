"""How much of a text the audio has said: the decoder's surprise with the audio, against that with silence.

Invented text is as likely without the audio as with it. Knows tokens and the network; no segments, no thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from pipeline.whisper.device import Arriving, onto
from pipeline.whisper.mel import WINDOW_FRAMES, log_mel
from pipeline.whisper.model import ANY_SHAPE, CACHE_STEP, Feed, Whisper, together

# Tokens whose logits are made at a time. 32 fit a CPU's cache, 7 MB of float32; a GPU wants few and large kernels.
CPU_ROWS, GPU_ROWS = 32, 2048


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


@dataclass(frozen=True)
class Weighed:
    """A claim's weights, which may still be on their way from the device."""

    logprobs: Arriving  # of all text tokens of the batch: float32 [2, M], nats
    mine: slice

    @property
    def there(self) -> bool:
        """Whether they can be read without waiting."""
        return self.logprobs.there

    def read(self) -> list[Weight]:
        """Return the weight of each text token."""
        return [Weight(*pair) for pair in self.logprobs.read()[:, self.mine].T.tolist()]


@torch.inference_mode()
def silence(model: Whisper) -> Tensor:
    """Return the cross keys and values of 30 s of zero samples: [L, 2, 1, H, A, E]."""
    device = model.device
    mel = log_mel(torch.zeros(1, dtype=torch.int16, device=device), model.dims.mel_bands)[:, :WINDOW_FRAMES]
    return model.decoder.audio(model.encoder(mel[None].to(model.dtype)))


@torch.inference_mode()
def weigh(model: Whisper, claims: Sequence[Claim], quiet: Tensor) -> list[Weighed]:
    """Weigh the text tokens of each claim: log p(token | audio) and log p(token | silence).

    Both from raw logits over the whole vocabulary, with the same prompt and the same tokens before each.
    """
    batches = (claims[at : at + model.batch] for at in range(0, len(claims), model.batch))
    return [found for batch in batches for found in _weigh(model, batch, quiet)]


@sdpa_kernel(ANY_SHAPE)
def _weigh(model: Whisper, claims: Sequence[Claim], quiet: Tensor) -> list[Weighed]:
    device = model.device
    longest = max(len(one.prompt) + len(one.tokens) - 1 for one in claims)
    fed = torch.zeros((len(claims), longest), dtype=torch.int64)
    for row, one in enumerate(claims):
        inputs = (one.prompt + one.tokens)[:-1]
        fed[row, : len(inputs)] = torch.tensor(inputs)
    fed = onto(device, fed)
    positions = torch.arange(longest, device=device).expand(len(claims), -1)
    heard = together([one.audio for one in claims])
    feeds = [
        Feed(fed, positions, _cache(model, len(claims), longest), audio, longest)
        for audio in (heard, quiet.expand(-1, -1, len(claims), -1, -1, -1))
    ]
    both = torch.stack(model.decoder(feeds))  # [2, N, T', D]
    texts = [[token for token in one.tokens if token < one.eot] for one in claims]
    places = [row * longest + place for row, one in enumerate(claims) for place in _places(one)]
    states = both.flatten(1, 2)[:, onto(device, torch.tensor(places))]  # [2, M, D]
    found = Arriving(_logprobs(model, states, onto(device, torch.tensor(list(chain(*texts))))))
    ends = list(accumulate(map(len, texts)))
    return [Weighed(found, slice(end - len(text), end)) for text, end in zip(texts, ends, strict=True)]


def _cache(model: Whisper, rows: int, longest: int) -> Tensor:
    return model.new_cache(rows, CACHE_STEP * math.ceil(longest / CACHE_STEP))


def _places(claim: Claim) -> list[int]:
    """Return the inputs that foretell the text tokens: each the one before."""
    before = len(claim.prompt) - 1
    return [before + at for at, token in enumerate(claim.tokens) if token < claim.eot]


def _logprobs(model: Whisper, states: Tensor, text: Tensor) -> Tensor:
    """states [2, M, D] that foretell the tokens `text` [M] -> their log-probabilities [2, M]."""
    rows = GPU_ROWS if states.is_cuda else CPU_ROWS
    each = zip(torch.split(states.flatten(0, 1), rows), torch.split(text.repeat(2), rows), strict=True)
    return torch.cat([_of(model.decoder.logits(some), tokens) for some, tokens in each]).view(2, -1)


def _of(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the log-probability of a token each: logits [M, vocabulary], which are lost, and tokens [M] -> [M]."""
    highest = logits.amax(1, keepdim=True)
    chosen = logits.gather(1, tokens[:, None]) - highest
    total = logits.sub_(highest).exp_().sum(1, keepdim=True)  # logsumexp makes copies, and takes twice as long
    return (chosen - total.log())[:, 0]
