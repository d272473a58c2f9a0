"""The filters on the logits, as tensor operations on all rows at once. Knows token ids, not what text they make.

Source: `whisper.decoding` of the reference implementation (SuppressBlank, SuppressTokens, ApplyTimestampRules), in
that order.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.whisper.tokens import Layout, Tokens

NEVER = float("-inf")


@dataclass
class History:
    """What the timestamp rules need to know of each row's past: [R] each."""

    count: Tensor  # int64: tokens sampled so far
    last_is_time: Tensor  # bool: the last token is a timestamp
    time_may_not_follow: Tensor  # bool: so is the one before it (or there is none), text must follow
    earliest: Tensor  # int64: smallest timestamp token that may come

    def __getitem__(self, rows: slice | Tensor) -> History:
        return History(self.count[rows], self.last_is_time[rows], self.time_may_not_follow[rows], self.earliest[rows])

    def __setitem__(self, rows: slice | Tensor, part: History) -> None:
        self.count[rows], self.last_is_time[rows] = part.count, part.last_is_time
        self.time_may_not_follow[rows], self.earliest[rows] = part.time_may_not_follow, part.earliest


class Rules:
    """Filters the next token's logits by the timestamp grammar and the suppressed tokens."""

    def __init__(
        self,
        tokens: Tokens,
        device: torch.device,
        *,
        suppress: Iterable[int] = (-1,),
        max_initial_timestamp: int = 50,
        timestamps: bool = True,
    ) -> None:
        """`suppress` as `Tokens.suppressed`; `max_initial_timestamp` counts timestamps (0.02 s): the latest first one.

        Without `timestamps` their grammar is not asked for.
        """
        self.layout: Layout = tokens.layout
        suppressed = {*tokens.suppressed(suppress), *([tokens.layout.no_timestamps] if timestamps else [])}
        self._suppressed = torch.tensor(sorted(suppressed), device=device)
        self._blank = torch.tensor(tokens.blank, device=device)
        self._latest_first = tokens.layout.first_timestamp + max_initial_timestamp
        self._timestamps = timestamps
        self._closable = torch.tensor(sorted({*suppressed, *tokens.blank}), device=device)  # beside the timestamps

    def new_history(self, rows: int) -> History:
        """Return the history of rows without a sampled token."""
        device = self._suppressed.device
        return History(
            count=torch.zeros(rows, dtype=torch.int64, device=device),
            last_is_time=torch.zeros(rows, dtype=torch.bool, device=device),
            time_may_not_follow=torch.zeros(rows, dtype=torch.bool, device=device),
            earliest=torch.full((rows,), self.layout.first_timestamp, device=device),
        )

    def closable(self, logits: Tensor) -> Tensor:
        """Return those logits [R, C] of [R, vocabulary] that `filter` may set to -inf where text comes."""
        few = logits.index_select(1, self._closable)
        return torch.cat([few, logits[:, self.layout.first_timestamp :]], 1) if self._timestamps else few

    def filter(self, logits: Tensor, history: History) -> Tensor:
        """Set what may not come to -inf, in place: logits [R, vocabulary] float32."""
        logits.index_fill_(1, self._suppressed, NEVER)
        start = history.count == 0
        logits[:, self._blank] += _closing(start)
        if self._timestamps:
            self._filter_timestamps(logits, history, start)
        return logits

    def _filter_timestamps(self, logits: Tensor, history: History, start: Tensor) -> None:
        eot, first = self.layout.eot, self.layout.first_timestamp
        # Views; marks are the end of text, and what rules the task.
        words, marks, times = logits[:, :eot], logits[:, eot:first], logits[:, first:]
        # A transcript starts with a timestamp. After text and one timestamp comes its twin or the end.
        twin_due = history.last_is_time & ~history.time_may_not_follow
        ids = torch.arange(first, first + times.shape[1], device=logits.device)
        latest = torch.where(start, self._latest_first, first + times.shape[1])
        closed = (ids < history.earliest[:, None]) | (ids > latest[:, None]) | history.time_may_not_follow[:, None]
        times.masked_fill_(closed, NEVER)
        # When the timestamps together are likelier than any other token, a timestamp comes.
        likeliest = marks.amax(1).maximum(words.amax(1).masked_fill_(twin_due, NEVER))
        time_due = times.logsumexp(1) > likeliest
        words.add_(_closing(start | time_due | twin_due))  # once: most of the vocabulary
        marks.add_(_closing(start | time_due))

    def follow(self, history: History, token: Tensor) -> History:
        """Return the history after `token` [R] was taken."""
        is_time = token >= self.layout.first_timestamp
        first_time = is_time & (history.count == 0)
        pair_closed = is_time & (history.last_is_time | first_time)
        # The twin of a segment's end may equal it; everything else comes later: no segment of length zero.
        twin_due = history.last_is_time & ~history.time_may_not_follow
        earliest = torch.where(is_time, token + pair_closed.long(), history.earliest + twin_due.long())
        return History(history.count + 1, is_time, pair_closed, earliest)


def _closing(rows: Tensor) -> Tensor:
    """Return what, added, closes `rows` (bool [R]) and leaves the others: float32 [R, 1]; quicker than masking."""
    return torch.zeros(len(rows), 1, device=rows.device).masked_fill_(rows[:, None], NEVER)
