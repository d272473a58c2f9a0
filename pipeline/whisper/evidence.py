"""How much of a text the audio has said: the decoder's surprise with the audio, against that with silence.

Invented text is as likely without the audio as with it. Knows tokens and the network; no segments, no thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, islice, pairwise, starmap
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from pipeline.whisper.device import Arriving, onto
from pipeline.whisper.mel import WINDOW_FRAMES, log_mel
from pipeline.whisper.model import ANY_SHAPE, Feed, Whisper, together

# Tokens whose logits are made at a time: 13 MB of float32 on a CPU, and as much for their log-softmax. A GPU wants few
# and large kernels.
CPU_ROWS, GPU_ROWS = 64, 1024
# What goes through the decoder together: more gains nothing, and a token has keys and values, on large-v3 330 KB of
# float32; those of the audio that a text is read with are 250 MB of 16 bits there.
CLAIMS, TOKENS = 16, 2048
EVEN_CHANCE = math.log(0.5)

T = TypeVar("T")


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
    unlikely: float  # share of the tokens that have less than an even chance with it


def sums(weights: Sequence[Weight]) -> Sums | None:
    """Return what tokens weigh together; None for none."""
    if not weights:
        return None
    evidence, count = sum(one.heard - one.quiet for one in weights), len(weights)
    unlikely = sum(one.heard < EVEN_CHANCE for one in weights)
    return Sums(evidence, evidence / count, sum(one.heard for one in weights) / count, unlikely / count)


@dataclass(frozen=True)
class Claim:
    """A window's text as it was decoded; no empty one.

    `heard` has its text tokens' log-probabilities with the audio, where decoding has met them behind the same `prompt`.
    """

    prompt: list[int]  # all before the first token
    tokens: list[int]  # timestamps included
    eot: int  # text tokens are those below it
    audio: Tensor | None = None  # cross keys and values [L, 2, H, A, E], where it is to be listened to again
    heard: Sequence[float] = ()

    @property
    def text(self) -> list[int]:
        """The text tokens."""
        return [token for token in self.tokens if token < self.eot]

    @property
    def cost(self) -> int:
        """How many tokens go through the decoder for it."""
        return (len(self.prompt) + len(self.tokens)) * (1 if self.audio is None else 2)

    @property
    def places(self) -> list[int]:
        """Those of the inputs that foretell the text tokens: each the one before."""
        before = len(self.prompt) - 1
        return [before + at for at, token in enumerate(self.tokens) if token < self.eot]


@dataclass(frozen=True)
class Weighed:
    """A claim's weights, which may still be on their way from the device."""

    logprobs: Arriving  # of text tokens of the batch, with silence or with audio: float32 [M], nats
    quiet: slice
    heard: slice | Sequence[float]

    @property
    def there(self) -> bool:
        """Whether they can be read without waiting."""
        return self.logprobs.there

    def read(self) -> list[Weight]:
        """Return the weight of each text token."""
        found = self.logprobs.read()
        heard = found[self.heard].tolist() if isinstance(self.heard, slice) else self.heard
        return [Weight(*pair) for pair in zip(heard, found[self.quiet].tolist(), strict=True)]


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
    return [found for some in _passes(claims) for found in _weigh(model, some, quiet)]


def _passes(claims: Iterable[Claim]) -> Iterator[list[Claim]]:
    """Yield the claims in groups of up to CLAIMS, whose tokens are no more than TOKENS; or one claim."""
    some: list[Claim] = []
    for one in claims:
        if len(some) == CLAIMS or (some and sum(claim.cost for claim in some) + one.cost > TOKENS):
            yield some
            some = []
        some.append(one)
    if some:
        yield some


@sdpa_kernel(ANY_SHAPE)
def _weigh(model: Whisper, claims: Sequence[Claim], quiet: Tensor) -> list[Weighed]:
    listened = [(one, one.audio) for one in claims if one.audio is not None]
    lines = [*claims, *(one for one, _ in listened)]
    feeds = [_feed(model, some, quiet) for some in _split(claims, model.batch)]
    for some in _split(listened, model.batch):
        again, audio = zip(*some, strict=True)
        feeds.append(_feed(model, again, together(audio)))
    hidden = torch.cat([one.flatten(0, 1) for one in model.decoder(feeds)])  # [all inputs, D]
    inputs = _slices([feed.tokens.shape[1] for feed in feeds for _ in feed.tokens])  # of each line
    places = [mine.start + place for mine, one in zip(inputs, lines, strict=True) for place in one.places]
    texts = [one.text for one in lines]
    text = onto(model.device, torch.tensor(list(chain(*texts))))
    found = Arriving(_logprobs(model, hidden[onto(model.device, torch.tensor(places))], text))
    outputs = iter(_slices(map(len, texts)))
    with_silence = list(islice(outputs, len(claims)))
    return [
        Weighed(found, mine, one.heard if one.audio is None else next(outputs))
        for mine, one in zip(with_silence, claims, strict=True)
    ]


def _split(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[at : at + size] for at in range(0, len(items), size)]


def _slices(sizes: Iterable[int]) -> list[slice]:
    """Return where each of some stretches lies that stand one behind the other."""
    return list(starmap(slice, pairwise(accumulate(sizes, initial=0))))


def _feed(model: Whisper, claims: Sequence[Claim], audio: Tensor) -> Feed:
    """Return the tokens but for the last ones as inputs, beside the `audio` [L, 2, N, H, A, E] of each, or of all."""
    return model.feed([(one.prompt + one.tokens)[:-1] for one in claims], audio)


def _logprobs(model: Whisper, states: Tensor, text: Tensor) -> Tensor:
    """states [M, D] that foretell the tokens `text` [M] -> their log-probabilities [M]."""
    rows = GPU_ROWS if states.is_cuda else CPU_ROWS
    each = zip(torch.split(states, rows), torch.split(text, rows), strict=True)
    found = [model.decoder.logits(some).log_softmax(1).gather(1, tokens[:, None]) for some, tokens in each]
    return torch.cat(found)[:, 0]
