"""The batch: each slot decodes one window, and takes the next as soon as its own has ended.

Knows tokens, caches and the rules; knows nothing of audio, gates or seeking. A slot holds as many candidates of its
window as the search is wide; they share the window's cross keys and values. Busy slots are always the first ones, so
that every operation is on a plain slice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from pipeline.whisper.device import Arriving, onto
from pipeline.whisper.model import ANY_SHAPE, TEXT_POSITIONS, Feed, Whisper, wide
from pipeline.whisper.padding import Thinned, apart
from pipeline.whisper.rules import NEVER, Rules
from pipeline.whisper.search import Candidate, Choice, Draw, Lines, Search
from pipeline.whisper.tokens import Layout

MAX_NEW_TOKENS = TEXT_POSITIONS // 2

Job = TypeVar("Job")


@dataclass(frozen=True)
class Order(Generic[Job]):
    """A window to decode. `job` is the caller's own, found again at the slot."""

    job: Job
    prompt: list[int]
    sot: int  # index of start-of-transcript in the prompt
    audio: Tensor  # cross keys and values [L, 2, H, A', E]
    draw: Draw = field(default_factory=Draw)
    thinned: Thinned | None = None  # how the padding of the audio is


class Sight:
    """The busy rows as they were when the host last looked: on a CPU as they are, on a GPU some steps ago.

    What has ended by then stays as it is, so that it can be read while the GPU goes on.
    """

    def __init__(self, lines: Lines, limit: Tensor, no_speech: Tensor) -> None:
        parts = (lines.tokens, lines.heard, lines.count, lines.logprob, lines.done)
        self._parts = [Arriving(part) for part in parts]
        self._limit, self._no_speech = Arriving(limit), Arriving(no_speech)

    @property
    def lines(self) -> Lines:
        return Lines(*(part.read() for part in self._parts))

    @property
    def limit(self) -> Tensor:
        return self._limit.read()

    @property
    def no_speech(self) -> Tensor:
        return self._no_speech.read()


class Slots(Generic[Job]):
    """`capacity` windows in decoding."""

    def __init__(self, model: Whisper, rules: Rules, search: Search, capacity: int, *, hears: bool = True) -> None:
        """`hears`: keep what each token was worth before the rules."""
        self._hears = hears
        self.model, self.rules, self.search = model, rules, search
        self.layout: Layout = rules.layout
        self.capacity, self.width = capacity, search.width
        self.jobs: list[Job] = []  # of the busy slots
        self._fed: list[int] = []  # positions in the caches of the busy slots
        self._thinned: list[Thinned | None] = []  # how the padding of their windows is
        device = model.device
        rows = capacity * self.width
        self._audio = model.new_audio(capacity)  # [L, 2, N, H, A, E]; a thinned window's lies dense in its room
        self._cache = model.new_cache(rows)  # [L, 2, R, H, S, E]
        self._tokens = torch.full((rows, MAX_NEW_TOKENS + 1), self.layout.eot, device=device)  # chosen ones
        self._heard = torch.zeros(rows, MAX_NEW_TOKENS + 1, device=device)  # what each was worth before the rules
        self._position = torch.zeros(rows, dtype=torch.int64, device=device)  # of the next token to feed
        self._limit = torch.zeros(rows, dtype=torch.int64, device=device)  # most tokens to choose
        self._logprob = torch.zeros(rows, device=device)  # sum over the chosen tokens
        self._done = torch.ones(rows, dtype=torch.bool, device=device)
        self._no_speech = torch.zeros(capacity, device=device)
        self._history = rules.new_history(rows)
        self._sight: Sight  # of the last look

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
        self._thinned += [order.thinned for order in orders]
        for slot, order in zip(range(begin, end), orders, strict=True):
            wide(self._room(slot, order.thinned)).copy_(wide(order.audio))
        batch = self.model.batch
        read = [self._read_prompts(orders[at : at + batch], begin + at) for at in range(0, len(orders), batch)]
        hidden_last, hidden_sot = (torch.cat(some) for some in zip(*read, strict=True))
        first = self.model.decoder.logits(hidden_sot).softmax(1)  # [n, vocabulary]
        self._no_speech[begin:end] = first[:, self.layout.no_speech]
        lengths = torch.tensor([len(order.prompt) for order in orders]).repeat_interleave(self.width)
        lengths = onto(self._done.device, lengths)
        self._position[rows] = lengths - 1
        self._limit[rows] = (TEXT_POSITIONS + 1 - lengths).clamp(max=MAX_NEW_TOKENS)
        self._logprob[rows] = 0
        self._tokens[rows] = self.layout.eot
        self._done[rows] = False
        self._history[rows] = self.rules.new_history(len(orders) * self.width)
        self.search.admit(begin, [order.draw for order in orders])
        logits = self.model.decoder.logits(hidden_last).repeat_interleave(self.width, 0)
        self._choose(begin, logits, max(self._fed[begin:]))

    @property
    def reach(self) -> int:
        """Positions of the caches that the next step looks at."""
        return min(max(self._fed, default=0) + 1, TEXT_POSITIONS)

    def advance(self) -> None:
        """Count a step."""
        self._fed = [min(fed + 1, TEXT_POSITIONS) for fed in self._fed]

    def feed(self, count: int, reach: int) -> Feed:
        """Return the newest token of each row of the first `count` slots, for the decoder; idle ones do no harm."""
        rows = slice(0, count * self.width)
        newest = self._tokens[rows].gather(1, (self._history.count[rows, None] - 1).clamp(min=0))  # [R, 1]
        position = self._position[rows, None].clamp(max=TEXT_POSITIONS - 1)  # rows that are done may stand beyond
        padding = apart([*self._thinned, *[None] * (count - self.busy)])  # a GPU, which records steps, thins none
        return Feed(newest, position, self._cache[:, :, rows], self._audio[:, :, :count], reach, padding=padding)

    def choose(self, logits: Tensor, reach: int) -> None:
        """Choose the next token of each row of the first slots by its logits [R, vocabulary]."""
        self._choose(0, logits, reach)

    def look(self) -> None:
        """Take the busy rows into sight: `ended`, and what is asked of those that have, tell what is seen now.

        Slots are neither filled nor freed between a look and these, but for those that it has shown to have ended.
        """
        rows = slice(0, self.busy * self.width)
        self._sight = Sight(self._lines(rows), self._limit[rows], self._no_speech[: self.busy])

    def give_up(self, hopeless: Callable[[list[int], int], bool], every: int, stride: int) -> None:
        """End the slots whose lines are all `hopeless`, as their tokens so far and the number that may still come tell.

        Asked at each look, of which lines grow by `stride`; each line is judged at every so many tokens of its own, so
        that batch mates do not decide where it ends. Lines of a slot end together: a beam's go on from each other.
        """
        lines, limits = self._sight.lines, self._sight.limit.tolist()
        counts, done = lines.count.tolist(), lines.done.tolist()
        for slot in range(self.busy):
            rows = range(slot * self.width, (slot + 1) * self.width)
            going = [(row, counts[row]) for row in rows if not done[row]]
            due = any(count // every > (count - stride) // every for _, count in going)
            if due and all(hopeless(lines.tokens[row, :n].tolist(), limits[row] - n) for row, n in going):
                self._done[rows.start : rows.stop] = True

    def ended(self) -> list[int]:
        """Return the slots whose candidates have all ended, last slot first: the order in which they can be freed."""
        done = self._sight.lines.done.view(-1, self.width).all(1)
        return list(reversed(done.nonzero().flatten().tolist()))

    def candidates(self, slot: int) -> list[Candidate]:
        """Return what a slot's window may say."""
        return self.search.candidates(slot, self._sight.lines[slot * self.width : (slot + 1) * self.width])

    def no_speech_prob(self, slot: int) -> float:
        """Return the probability of the no-speech token where the transcript of a slot's window starts."""
        return float(self._sight.no_speech[slot])

    def audio(self, slot: int) -> tuple[Tensor, Thinned | None]:
        """Return a copy of the slot's cross keys and values [L, 2, H, A', E], and how their padding is thinned."""
        thinned = self._thinned[slot]
        return wide(self._room(slot, thinned)).clone().view(self._audio.dtype), thinned

    def release(self, slot: int) -> None:
        """Free `slot`; the last busy slot moves into it."""
        self._move(self.busy - 1, slot)
        self.jobs[slot], self._fed[slot], self._thinned[slot] = self.jobs[-1], self._fed[-1], self._thinned[-1]
        self.jobs.pop()
        self._fed.pop()
        self._thinned.pop()
        self._done[self.busy * self.width : (self.busy + 1) * self.width] = True

    @sdpa_kernel(ANY_SHAPE)
    def _read_prompts(self, orders: list[Order[Job]], begin: int) -> tuple[Tensor, Tensor]:
        """Fill the caches of the new slots with their prompts; return the hidden states [n, D] of last and SOT."""
        device, count = self._done.device, len(orders)
        # Behind shorter prompts stands padding, whose cache entries their own tokens overwrite before they are seen.
        audio, padding = self._audio[:, :, begin : begin + count], apart([order.thinned for order in orders])
        feed = self.model.feed([order.prompt for order in orders], audio, padding=padding)
        (hidden,) = self.model.decoder([feed])  # [n, P, D]
        rows = slice(begin * self.width, (begin + count) * self.width)
        read = feed.cache[..., : feed.reach, :].repeat_interleave(self.width, 2)
        self._cache[:, :, rows, :, : feed.reach] = read
        each = torch.arange(count, device=device)
        last = onto(device, torch.tensor([len(order.prompt) - 1 for order in orders]))
        sot = onto(device, torch.tensor([order.sot for order in orders]))
        return hidden[each, last], hidden[each, sot]

    def _choose(self, begin: int, logits: Tensor, reach: int) -> None:
        """Choose the next tokens of the rows from slot `begin` on by their logits [R, vocabulary], write them down."""
        rows = slice(begin * self.width, begin * self.width + len(logits))
        history, lines = self._history[rows], self._lines(rows)
        closable = self.rules.closable(logits) if self._hears else None
        logits = self.rules.filter(logits, history)
        choice = self.search.choose(logits, lines, begin)
        if choice.source is not None:
            self._rearrange(rows, choice.source, reach)
        going, count = ~lines.done, history.count
        lines.tokens.scatter_(1, count[:, None], choice.token[:, None])
        if closable is not None:
            closed = closable.masked_fill_(self.rules.closable(logits) != NEVER, NEVER).logsumexp(1)  # [R]
            lines.heard.scatter_(1, count[:, None], _unfiltered(choice, logits, closed)[:, None])
        lines.logprob.copy_(choice.logprob)
        after = self.rules.follow(history, choice.token)
        after.count = count + going
        self._position[rows] += going
        self._done[rows] = choice.done | (after.count >= self._limit[rows])
        self._history[rows] = after

    def _rearrange(self, rows: slice, source: Tensor, reach: int) -> None:
        """Let each of `rows` go on from the row `source` [R], counted from the first of them, of the same slot.

        No row has more than `reach` positions in the cache.
        """
        if source.device.type != "cpu":  # all of it: to ask what has changed would stop the device
            cache = self._cache[:, :, rows, :, :reach]
            cache.copy_(cache[:, :, source])
            self._tokens[rows], self._heard[rows] = self._tokens[rows][source], self._heard[rows][source]
            self._history[rows] = self._history[rows][source]
            return
        target = (source != torch.arange(len(source))).nonzero()[:, 0]
        a, b = rows.start + source[target], rows.start + target
        # Lines of a window share its prompt and most of their past: only what lies behind their fork is copied.
        count = self._history.count[b]
        forked = self._tokens[a] != self._tokens[b]
        fork = self._position[b] - count + 1 + torch.where(forked.any(1), forked.int().argmax(1), count)
        for slot in set((b // self.width).tolist()):
            mine = b // self.width == slot
            past = slice(int(fork[mine].min()), self._fed[slot] + 1)
            self._cache[:, :, b[mine], :, past] = self._cache[:, :, a[mine], :, past]
        self._tokens[b], self._heard[b] = self._tokens[a], self._heard[a]
        self._history[b] = self._history[a]

    def _move(self, source: int, target: int) -> None:
        """Take the window of slot `source` to the slot `target`."""
        if source == target:
            return
        a = slice(source * self.width, (source + 1) * self.width)
        b = slice(target * self.width, (target + 1) * self.width)
        reach = self._fed[source]
        thinned = self._thinned[source]
        wide(self._room(target, thinned)).copy_(wide(self._room(source, thinned)))
        wide(self._cache[:, :, b, :, :reach]).copy_(wide(self._cache[:, :, a, :, :reach]))
        self._no_speech[target] = self._no_speech[source]
        for state in (self._tokens, self._heard, self._position, self._limit, self._logprob, self._done):
            state[b] = state[a]
        self._history[b] = self._history[a]
        self.search.move(source, target)

    def _room(self, slot: int, thinned: Thinned | None) -> Tensor:
        """Return the view of the slot's cross keys and values, [L, 2, H, A', E]."""
        room = self._audio[:, :, slot]
        return thinned.dense(room) if thinned else room

    def _lines(self, rows: slice) -> Lines:
        """Return views of the rows' state."""
        count = self._history.count[rows]
        return Lines(self._tokens[rows], self._heard[rows], count, self._logprob[rows], self._done[rows])


def _unfiltered(choice: Choice, logits: Tensor, closed: Tensor) -> Tensor:
    """Return the log-probability of the chosen text tokens [R] before some were closed; of timestamps it means nothing.

    `logits` [R, vocabulary] are filtered, `closed` [R] is the logarithm of what the closed ones weighed. Where text
    comes, these are few, so that nothing has to be summed over the vocabulary again.
    """
    rows = torch.arange(len(logits), device=logits.device) if choice.source is None else choice.source
    chosen = logits[rows, choice.token]
    return chosen - torch.logaddexp(chosen - choice.step, closed[rows])
