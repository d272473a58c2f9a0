"""The batch: each slot decodes one window, and takes the next as soon as its own has ended.

Knows tokens, caches and the rules; knows nothing of audio, gates or seeking. A slot holds `width` candidates of its
window, which share the window's cross keys and values. Busy slots are always the first ones, so that every operation
is on a plain slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from pipeline.whisper.model import CACHE_STEP, TEXT_POSITIONS, Whisper
from pipeline.whisper.rules import History, Rules
from pipeline.whisper.tokens import Layout

MAX_NEW_TOKENS = TEXT_POSITIONS // 2

Job = TypeVar("Job")


@dataclass(frozen=True)
class Order(Generic[Job]):
    """A window to decode. `job` is the caller's own, found again at the slot."""

    job: Job
    prompt: list[int]
    sot: int  # index of start-of-transcript in the prompt
    audio: Tensor  # cross keys and values [L, 2, H, A, E]
    temperature: float
    seeds: tuple[int, ...]  # one a candidate


@dataclass(frozen=True)
class Result:
    """The likeliest candidate of a window."""

    tokens: list[int]  # without prompt and end of text
    avg_logprob: float  # nats a token, end of text counted
    no_speech_prob: float


class Slots(Generic[Job]):
    """`capacity` windows in decoding, each with `width` candidates: the likeliest token each, or sampled ones."""

    def __init__(self, model: Whisper, rules: Rules, capacity: int, width: int, *, sampling: bool) -> None:
        self.model, self.rules = model, rules
        self.layout: Layout = rules.layout
        self.capacity, self.width, self.sampling = capacity, width, sampling
        self.jobs: list[Job] = []  # of the busy slots
        self._fed: list[int] = []  # positions in the caches of the busy slots
        device = model.decoder.positions.device
        dims, rows = model.dims, capacity * width
        shape = (
            dims.decoder_layers,
            2,
            capacity,
            dims.heads,
            model.encoder.positions.shape[0],
            dims.width // dims.heads,
        )
        self._audio = torch.zeros(shape, dtype=model.decoder.positions.dtype, device=device)  # [L, 2, N, H, A, E]
        self._cache = model.new_cache(rows)  # [L, 2, R, H, S, E]
        self._tokens = torch.full((rows, MAX_NEW_TOKENS + 1), self.layout.eot, device=device)  # sampled ones
        self._position = torch.zeros(rows, dtype=torch.int64, device=device)  # of the next token to feed
        self._limit = torch.zeros(rows, dtype=torch.int64, device=device)  # most tokens to sample
        self._logprob = torch.zeros(rows, device=device)  # sum over the sampled tokens
        self._no_speech = torch.zeros(rows, device=device)
        self._temperature = torch.zeros(rows, device=device)
        self._uniform = torch.zeros(rows, MAX_NEW_TOKENS, device=device)  # the row's randomness, a number a step
        self._done = torch.zeros(rows, dtype=torch.bool, device=device)
        self._history = rules.new_history(rows, device)

    @property
    def free(self) -> int:
        return self.capacity - len(self.jobs)

    @property
    def busy(self) -> int:
        return len(self.jobs)

    def admit(self, orders: list[Order[Job]]) -> None:
        """Take `orders` (at most `free`): read their prompts and choose their first tokens."""
        begin, end = self.busy, self.busy + len(orders)
        rows = slice(begin * self.width, end * self.width)
        self.jobs += [order.job for order in orders]
        self._fed += [len(order.prompt) for order in orders]
        for slot, order in zip(range(begin, end), orders, strict=True):
            self._audio[:, :, slot] = order.audio
        hidden_last, hidden_sot = self._read_prompts(orders, begin)
        first = self.model.decoder.logits(hidden_sot).softmax(1)[:, self.layout.no_speech]  # [n]
        self._no_speech[rows] = first.repeat_interleave(self.width)
        lengths = torch.tensor([len(order.prompt) for order in orders]).repeat_interleave(self.width)
        self._position[rows] = (lengths - 1).to(self._position.device)
        self._limit[rows] = (TEXT_POSITIONS + 1 - lengths).clamp(max=MAX_NEW_TOKENS).to(self._limit.device)
        self._logprob[rows] = 0
        self._tokens[rows] = self.layout.eot
        self._done[rows] = False
        self._temperature[rows] = torch.tensor([float(order.temperature) for order in orders]).repeat_interleave(
            self.width
        )
        self._uniform[rows] = torch.stack([_uniform(seed) for order in orders for seed in order.seeds])
        self._assign(rows, self.rules.new_history(len(orders) * self.width, self._done.device))
        logits = self.model.decoder.logits(hidden_last).repeat_interleave(self.width, 0)
        self._choose(rows, logits)

    def step(self) -> None:
        """Feed each busy row its last token and choose the next one."""
        rows = slice(0, self.busy * self.width)
        newest = self._tokens[rows].gather(1, self._history.count[rows, None] - 1)  # [R, 1]
        position = self._position[rows, None].clamp(max=TEXT_POSITIONS - 1)  # rows that are done may stand beyond
        self._fed = [min(fed + 1, TEXT_POSITIONS) for fed in self._fed]
        audio = self._audio[:, :, : self.busy]
        hidden = self.model.decoder(newest, position, self._cache[:, :, rows], audio, max(self._fed))
        self._choose(rows, self.model.decoder.logits(hidden[:, 0]))

    def ended(self) -> list[int]:
        """Return the slots whose candidates have all ended, last slot first: the order in which they can be freed."""
        done = self._done[: self.busy * self.width].view(-1, self.width).all(1)
        return list(reversed(done.nonzero().flatten().tolist()))

    def result(self, slot: int) -> Result:
        """Return the likeliest candidate: by mean log-probability, end of text counted in the sum only."""
        rows = slice(slot * self.width, (slot + 1) * self.width)
        candidates = []
        for tokens, logprob in zip(self._tokens[rows].tolist(), self._logprob[rows].tolist(), strict=True):
            kept = tokens[: tokens.index(self.layout.eot)]  # unused places hold end of text, too
            candidates.append((logprob / max(1, len(kept)), logprob / (len(kept) + 1), kept))
        _, avg_logprob, tokens = max(candidates, key=lambda candidate: candidate[0])
        return Result(tokens, avg_logprob, float(self._no_speech[rows.start]))

    def audio(self, slot: int) -> Tensor:
        """Return a copy of the slot's cross keys and values, for another try."""
        return self._audio[:, :, slot].clone()

    def release(self, slot: int) -> None:
        """Free `slot`; the last busy slot moves into it."""
        self._move(self.busy - 1, slot)
        self.jobs[slot], self._fed[slot] = self.jobs[-1], self._fed[-1]
        self.jobs.pop()
        self._fed.pop()

    def _read_prompts(self, orders: list[Order[Job]], begin: int) -> tuple[Tensor, Tensor]:
        """Fill the caches of the new slots with their prompts; return the hidden states [n, D] of last and SOT."""
        device = self._done.device
        count, longest = len(orders), max(len(order.prompt) for order in orders)
        tokens = torch.full((count, longest), self.layout.eot)
        for i, order in enumerate(orders):
            tokens[i, : len(order.prompt)] = torch.tensor(order.prompt)
        # Shorter prompts are followed by padding, whose cache entries their own tokens overwrite before they are seen.
        positions = torch.arange(longest, device=device).expand(count, -1)
        cache = self.model.new_cache(count, CACHE_STEP * math.ceil(longest / CACHE_STEP))
        audio = self._audio[:, :, begin : begin + count]
        hidden = self.model.decoder(tokens.to(device), positions, cache, audio, longest)  # [n, P, D]
        rows = slice(begin * self.width, (begin + count) * self.width)
        self._cache[:, :, rows, :, :longest] = cache[..., :longest, :].repeat_interleave(self.width, 2)
        each = torch.arange(count, device=device)
        last = torch.tensor([len(order.prompt) - 1 for order in orders], device=device)
        sot = torch.tensor([order.sot for order in orders], device=device)
        return hidden[each, last], hidden[each, sot]

    def _choose(self, rows: slice, logits: Tensor) -> None:
        """Filter `logits` [R, vocabulary], take each row's next token, and write it down."""
        history = self._view(rows)
        logits = self.rules.filter(logits, history)
        token = self._sample(rows, logits, history.count) if self.sampling else logits.argmax(1)
        logprob = logits.gather(1, token[:, None])[:, 0] - logits.logsumexp(1)  # at temperature 1
        done = self._done[rows]
        token = token.masked_fill(done, self.layout.eot)
        self._logprob[rows] += logprob.masked_fill(done, 0.0)
        self._tokens[rows] = self._tokens[rows].scatter(1, history.count[:, None], token[:, None])
        after = self.rules.follow(history, token)
        after.count = torch.where(done, history.count, after.count)
        self._assign(rows, after)
        self._position[rows] += (~done).long()
        self._done[rows] = done | (token == self.layout.eot) | (after.count >= self._limit[rows])

    def _sample(self, rows: slice, logits: Tensor, step: Tensor) -> Tensor:
        """Draw from softmax(logits / T) by inverting its distribution at the row's own number for this step."""
        cumulative = (logits / self._temperature[rows, None]).softmax(1).cumsum(1)
        number = self._uniform[rows].gather(1, step[:, None].clamp(max=MAX_NEW_TOKENS - 1)) * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, number, right=True)[:, 0]
        return token.clamp(max=logits.shape[1] - 1)

    def _move(self, source: int, target: int) -> None:
        if source == target:
            return
        a = slice(source * self.width, (source + 1) * self.width)
        b = slice(target * self.width, (target + 1) * self.width)
        reach = self._fed[source]
        self._audio[:, :, target] = self._audio[:, :, source]
        self._cache[:, :, b, :, :reach] = self._cache[:, :, a, :, :reach]
        for state in (self._tokens, self._position, self._limit, self._logprob, self._no_speech, self._temperature):
            state[b] = state[a]
        self._uniform[b], self._done[b] = self._uniform[a], self._done[a]
        self._assign(b, self._view(a))

    def _view(self, rows: slice) -> History:
        h = self._history
        return History(h.count[rows], h.last_is_time[rows], h.time_may_not_follow[rows], h.earliest[rows])

    def _assign(self, rows: slice, part: History) -> None:
        h = self._history
        h.count[rows], h.last_is_time[rows] = part.count, part.last_is_time
        h.time_may_not_follow[rows], h.earliest[rows] = part.time_may_not_follow, part.earliest


def _uniform(seed: int) -> Tensor:
    """Return the numbers [MAX_NEW_TOKENS] in [0, 1) of a seed, the same on every device."""
    return torch.rand(MAX_NEW_TOKENS, generator=torch.Generator().manual_seed(seed))
