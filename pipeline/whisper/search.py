"""How the next token is chosen from the filtered logits: greedy, by sampling, or by beam search.

Knows probabilities only: no tensors of the network, no rules, no text. Rows are the candidates of windows: `width` of
them stand in consecutive rows. A search may keep state of its own for each slot (a window's place in the batch).

Source: `whisper.decoding` of the reference implementation (GreedyDecoder, BeamSearchDecoder, MaximumLikelihoodRanker).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from pipeline.whisper.device import onto

BLOCK = 64  # logits


@dataclass(frozen=True)
class Draw:
    """What a window's sampling takes: its temperature, and a seed a candidate."""

    temperature: float = 0.0
    seeds: tuple[int, ...] = ()


@dataclass
class Lines:
    """The candidates so far, of rows in consecutive slots: views into the batch's state."""

    tokens: Tensor  # int64 [R, T], filled up with end of text
    heard: Tensor  # float32 [R, T]: each token's log-probability before the rules filtered it, nats
    count: Tensor  # int64 [R]: tokens so far
    logprob: Tensor  # float32 [R]: sum over the tokens, nats
    done: Tensor  # bool [R]

    def __getitem__(self, rows: slice) -> Lines:
        return Lines(self.tokens[rows], self.heard[rows], self.count[rows], self.logprob[rows], self.done[rows])


@dataclass(frozen=True)
class Choice:
    """The next token of each row, and which row it goes on from (None: its own)."""

    token: Tensor  # int64 [R]
    step: Tensor  # float32 [R]: the token's log-probability, nats
    logprob: Tensor  # float32 [R]: the new sums
    done: Tensor  # bool [R]
    source: Tensor | None = None  # int64 [R], counted from the first of these rows


@dataclass(frozen=True)
class Candidate:
    """A finished line."""

    tokens: list[int]  # without end of text
    heard: list[float]  # the log-probability of each before the rules filtered it, nats
    logprob: float  # sum over the tokens and end of text, nats

    @property
    def avg_logprob(self) -> float:
        return self.logprob / (len(self.tokens) + 1)


class Search(Protocol):
    """A way to choose. Slots are named by their place in the batch."""

    width: int

    def admit(self, first: int, draws: Sequence[Draw]) -> None:
        """Begin new windows in the slots from `first` on."""

    def move(self, source: int, target: int) -> None:
        """Take a slot's state to another place."""

    def choose(self, logits: Tensor, lines: Lines, first: int) -> Choice:
        """Choose for the rows of the slots from `first` on, by `logits` [R, vocabulary]."""
        ...

    def candidates(self, slot: int, lines: Lines) -> list[Candidate]:
        """Return the finished lines of a slot, whose rows are `lines`."""
        ...


class Greedy:
    """The likeliest token."""

    width = 1

    def __init__(self, eot: int) -> None:
        self._eot = eot

    def admit(self, first: int, draws: Sequence[Draw]) -> None:
        """See `Search`; nothing to keep."""

    def move(self, source: int, target: int) -> None:
        """See `Search`; nothing to keep."""

    def choose(self, logits: Tensor, lines: Lines, first: int) -> Choice:
        """See `Search`."""
        logprob, token = logits.log_softmax(1).max(1)  # one pass, where logsumexp takes four
        return _advance(token, logprob, lines, self._eot)

    def candidates(self, slot: int, lines: Lines) -> list[Candidate]:
        """See `Search`."""
        return _finished(lines.tokens, lines.heard, lines.logprob, self._eot)


class Sampling:
    """Tokens drawn from softmax(logits / temperature), by numbers that the seeds fix beforehand."""

    def __init__(self, width: int, capacity: int, eot: int, longest: int, device: torch.device) -> None:
        self.width = width
        self._eot, self._longest = eot, longest
        self._temperature = torch.ones(capacity * width, device=device)
        self._uniform = torch.zeros(capacity * width, longest, device=device)  # a number a token

    def admit(self, first: int, draws: Sequence[Draw]) -> None:
        """See `Search`."""
        rows = slice(first * self.width, (first + len(draws)) * self.width)
        temperatures = torch.tensor([draw.temperature for draw in draws])
        self._temperature[rows] = onto(self._temperature.device, temperatures.repeat_interleave(self.width))
        numbers = torch.stack([_uniform(seed, self._longest) for draw in draws for seed in draw.seeds])
        self._uniform[rows] = onto(self._uniform.device, numbers)

    def move(self, source: int, target: int) -> None:
        """See `Search`."""
        a, b = (slice(slot * self.width, (slot + 1) * self.width) for slot in (source, target))
        self._temperature[b], self._uniform[b] = self._temperature[a], self._uniform[a]

    def choose(self, logits: Tensor, lines: Lines, first: int) -> Choice:
        """See `Search`: inverts each row's distribution at the row's number for this step.

        At temperature 0, which may come after another, that is the likeliest token.
        """
        rows = slice(first * self.width, first * self.width + len(logits))
        cold = self._temperature[rows] == 0
        cumulative = (logits / self._temperature[rows].masked_fill(cold, 1.0)[:, None]).softmax(1).cumsum(1)
        step = lines.count[:, None].clamp(max=self._longest - 1)
        number = self._uniform[rows].gather(1, step) * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, number, right=True)[:, 0].clamp(max=logits.shape[1] - 1)
        token = torch.where(cold, logits.argmax(1), token)
        logprob = logits.log_softmax(1).gather(1, token[:, None])[:, 0]  # at temperature 1
        return _advance(token, logprob, lines, self._eot)

    def candidates(self, slot: int, lines: Lines) -> list[Candidate]:
        """See `Search`."""
        return _finished(lines.tokens, lines.heard, lines.logprob, self._eot)


class Beam:
    """The `width` likeliest lines, until `patience` times as many have ended."""

    def __init__(
        self, width: int, patience: float, capacity: int, eot: int, longest: int, device: torch.device
    ) -> None:
        self.width = width
        self._eot = eot
        self._wanted = max(1, round(width * patience))
        shape = (capacity, self._wanted + 1)
        self._ended = torch.zeros(capacity, dtype=torch.int64, device=device)  # lines, of each slot
        self._ended_tokens = torch.full((*shape, longest + 1), eot, device=device)
        self._ended_heard = torch.zeros((*shape, longest + 1), device=device)
        self._ended_logprob = torch.zeros(shape, device=device)

    def admit(self, first: int, draws: Sequence[Draw]) -> None:
        """See `Search`."""
        self._ended[first : first + len(draws)] = 0

    def move(self, source: int, target: int) -> None:
        """See `Search`."""
        for state in (self._ended, self._ended_tokens, self._ended_heard, self._ended_logprob):
            state[target] = state[source]

    def choose(self, logits: Tensor, lines: Lines, first: int) -> Choice:
        """See `Search`.

        Every line offers its `width` + 1 likeliest tokens. Walking down the offers of a window, those that end it are
        set aside, the others go on, until `width` go on.
        """
        width, slots = self.width, len(logits) // self.width
        offered, tokens = _largest(logits.log_softmax(1), width + 1)  # [R, W + 1]
        sums, offered = (lines.logprob[:, None] + offered).view(slots, width, width + 1), offered.view(slots, -1)
        # At first all lines of a window are the same: only the first makes offers.
        alike = (lines.count.view(slots, width, 1) == 0) & (torch.arange(width, device=sums.device)[:, None] > 0)
        sums, order = sums.masked_fill(alike, -torch.inf).flatten(1).sort(descending=True, stable=True)  # [N, W(W+1)]
        tokens = tokens.view(slots, -1).gather(1, order)
        source = order // (width + 1) + torch.arange(0, slots * width, width, device=sums.device)[:, None]
        ends = tokens == self._eot
        going = (~ends).cumsum(1)
        self._set_aside(first, ends & (going < width), sums, source, lines)
        # The places of the first `width` offers that go on.
        place = torch.arange(sums.shape[1], device=sums.device).expand_as(sums).masked_fill(ends, sums.shape[1])
        place = place.topk(width, largest=False, sorted=True).values
        step = offered.gather(1, order.gather(1, place)).flatten()
        over = lines.done.view(slots, width).all(1).repeat_interleave(width)  # a GPU goes on until the host looks
        full = (self._ended[first : first + slots] >= self._wanted).repeat_interleave(width)
        return Choice(
            tokens.gather(1, place).flatten().masked_fill(over, self._eot),
            step,
            torch.where(over, lines.logprob, sums.gather(1, place).flatten()),
            full | over,
            torch.where(over, torch.arange(len(over), device=over.device), source.gather(1, place).flatten()),
        )

    def _set_aside(self, first: int, ends: Tensor, sums: Tensor, source: Tensor, lines: Lines) -> None:
        """Keep the lines that end here (`ends` [N, offers], likeliest first) as far as they are wanted."""
        slots = slice(first, first + len(ends))
        place = self._ended[slots, None] + ends.cumsum(1) - 1
        kept = ends & (place < self._wanted) & ~lines.done.view(len(ends), -1)[:, :1]
        to = torch.where(kept, place, self._wanted)  # the last place takes what is not kept
        slot = torch.arange(len(ends), device=ends.device)[:, None]
        longest = self._ended_tokens.shape[2]
        self._ended_tokens[slots].index_put_((slot, to), lines.tokens[source, :longest])
        self._ended_heard[slots].index_put_((slot, to), lines.heard[source, :longest])
        self._ended_logprob[slots].index_put_((slot, to), sums)
        self._ended[slots] += kept.sum(1)

    def candidates(self, slot: int, lines: Lines) -> list[Candidate]:
        """See `Search`: the ended lines, filled up to `width` by the likeliest of those that did not end."""
        ended = int(self._ended[slot])
        aside = (self._ended_tokens, self._ended_heard, self._ended_logprob)
        tokens, heard, logprob = (state[slot, :ended] for state in aside)
        finished = _finished(tokens, heard, logprob, self._eot)
        going = _finished(lines.tokens, lines.heard, lines.logprob, self._eot)
        cut_off = sorted(going, key=lambda line: line.logprob, reverse=True)
        return finished + cut_off[: max(0, self.width - ended)]


def likeliest(candidates: Sequence[Candidate], length_penalty: float | None) -> Candidate:
    """Return the best by log-probability a token, or over ((5 + length) / 6) ** length_penalty (Wu et al. 2016)."""

    def rank(line: Candidate) -> float:
        length = max(1, len(line.tokens))
        return line.logprob / (length if length_penalty is None else ((5 + length) / 6) ** length_penalty)

    return max(candidates, key=rank)


def _largest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return what `logits.topk(count)` does, but for equal ones: it looks into blocks with the largest maxima only."""
    ids = torch.arange(logits.shape[1], device=logits.device)
    whole = len(ids) // BLOCK * BLOCK  # those behind are looked at one by one: to fill up a block would copy all
    blocks, ids_of = torch.unflatten(logits[:, :whole], 1, (-1, BLOCK)), ids[:whole].view(-1, BLOCK)
    held = blocks.amax(2).topk(min(count, len(ids_of))).indices  # [R, count]
    looked_at = torch.cat([ids_of[held].flatten(1), ids[whole:].expand(len(logits), -1)], 1)
    values, place = logits.gather(1, looked_at).topk(count)
    return values, looked_at.gather(1, place)


def _advance(token: Tensor, logprob: Tensor, lines: Lines, eot: int) -> Choice:
    """Let rows go on with `token`, but not those that are done."""
    token = token.masked_fill(lines.done, eot)
    return Choice(token, logprob, lines.logprob + logprob.masked_fill(lines.done, 0.0), lines.done | (token == eot))


def _finished(tokens: Tensor, heard: Tensor, logprob: Tensor, eot: int) -> list[Candidate]:
    rows = zip(tokens.tolist(), heard.tolist(), logprob.tolist(), strict=True)
    return [Candidate(line[: (end := line.index(eot))], each[:end], whole) for line, each, whole in rows]


def _uniform(seed: int, count: int) -> Tensor:
    """Return `count` numbers in [0, 1), the same on every device."""
    return torch.rand(count, generator=torch.Generator().manual_seed(seed))
