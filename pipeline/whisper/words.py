"""Aligned tokens -> words with times, in their segments. Knows no tensors.

Source: `whisper.timing` and `whisper.tokenizer` of the reference implementation.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.whisper.alignment import Alignment
from pipeline.whisper.tokens import Tokens

WITHOUT_SPACES = {"zh", "ja", "th", "lo", "my", "yue"}  # a word is then what makes whole characters
JOINS_NEXT = "\"'“¿([{-"
JOINS_PREVIOUS = "\"'.。,，!！?？:：”)]}、"
SENTENCE_ENDS = ".。!！?？"
LONGEST_MEDIAN_S = 0.7
TRUSTED_S = 0.5  # a first or last word may reach so far over its segment


@dataclass
class Timing:
    """A word in the making; times in seconds, in the window, and from `assign` on in the recording."""

    text: str
    tokens: int  # how many; 0 once it is joined to another
    start: float
    end: float
    probability: float


@dataclass
class Bounds:
    """A segment's start and end in seconds, and how many tokens of text it has."""

    start: float
    end: float
    tokens: int


Timed = tuple[list[Timing], float]  # a window's words, with times in it, and their median duration
UNTIMED: Timed = ([], 0.0)


def split(tokens: Tokens, text: Sequence[int], language: str) -> list[tuple[str, int]]:
    """Return the words of `text` with their numbers of tokens: at spaces and punctuation, or at whole characters."""
    pieces = _characters(tokens, text)
    if language in WITHOUT_SPACES:
        return pieces
    words: list[tuple[str, int]] = []
    for piece, count in pieces:
        if not words or piece.startswith(" ") or piece.strip() in string.punctuation:
            words.append((piece, count))
        else:
            words[-1] = (words[-1][0] + piece, words[-1][1] + count)
    return words


def _characters(tokens: Tokens, text: Sequence[int]) -> list[tuple[str, int]]:
    """Return the shortest runs of tokens that decode to whole characters."""
    whole, broken = tokens.decode(list(text)), "\ufffd"
    pieces: list[tuple[str, int]] = []
    begin = offset = 0
    for end in range(1, len(text) + 1):
        piece = tokens.decode(list(text[begin:end]))
        # A replacement character that the whole text has, too, is no cut character.
        at = offset + piece.find(broken)
        if broken not in piece or whole[at : at + 1] == broken:
            pieces.append((piece, end - begin))
            begin, offset = end, offset + len(piece)
    if begin < len(text):  # the text ends inside a character: it belongs to what is before it
        last, count = pieces.pop() if pieces else ("", 0)
        pieces.append((last + whole[offset:], count + len(text) - begin))
    return pieces


def timings(words: Sequence[tuple[str, int]], alignment: Alignment) -> Timed:
    """Return words with times in the window, punctuation joined, and the median duration (at most 0.7 s)."""
    edges = np.cumsum([0, *(count for _, count in words)])
    timed = [
        Timing(
            text,
            count,
            float(alignment.times[begin]),
            float(alignment.times[end]),
            float(np.mean(alignment.probabilities[begin:end])),
        )
        for (text, count), begin, end in zip(words, edges[:-1], edges[1:], strict=True)
    ]
    durations = [word.end - word.start for word in timed if word.end != word.start]
    median = min(LONGEST_MEDIAN_S, float(np.median(durations))) if durations else 0.0
    if durations:
        _shorten_at_sentence_ends(timed, 2 * median)
    _join(timed)
    return timed, median


def _shorten_at_sentence_ends(words: list[Timing], longest: float) -> None:
    for previous, word in pairwise(words):
        if word.end - word.start > longest:
            if word.text in SENTENCE_ENDS:
                word.end = word.start + longest
            elif previous.text in SENTENCE_ENDS:
                word.start = word.end - longest


def _join(words: list[Timing]) -> None:
    """Join opening punctuation to the word behind it and closing punctuation to the word before it."""
    behind = len(words) - 1
    for at in range(len(words) - 2, -1, -1):
        if words[at].text.startswith(" ") and words[at].text.strip() in JOINS_NEXT:
            words[behind].text = words[at].text + words[behind].text
            words[behind].tokens += words[at].tokens
            words[at].text, words[at].tokens = "", 0
        else:
            behind = at
    before = 0
    for at in range(1, len(words)):
        if not words[before].text.endswith(" ") and words[at].text in JOINS_PREVIOUS:
            words[before].text += words[at].text
            words[before].tokens += words[at].tokens
            words[at].text, words[at].tokens = "", 0
        else:
            before = at


def assign(
    words: list[Timing], median: float, segments: Sequence[Bounds], origin: float, last: float
) -> list[list[Timing]]:
    """Return the words of each segment, and move the segments' bounds to them.

    `words` have times in the window, which starts at `origin` seconds of the recording; `last` is where speech ended
    before it. The first and last word of a segment are reconciled with its bounds.
    """
    assigned: list[list[Timing]] = []
    at = 0
    for segment in segments:
        taken, mine = 0, []
        while at < len(words) and taken < segment.tokens:
            word = words[at]
            if word.text:
                start, end = round(origin + word.start, 2), round(origin + word.end, 2)
                mine.append(Timing(word.text, word.tokens, start, end, word.probability))
            taken += word.tokens
            at += 1
        if mine:
            _shorten_after_pause(mine, median, last)
            _reconcile(mine, median, segment)
            last = segment.end
        assigned.append(mine)
    return assigned


def _shorten_after_pause(words: list[Timing], median: float, last: float) -> None:
    """Let the first two words behind a long pause be no longer than twice the median each."""
    longest, first = 2 * median, words[0]
    second = words[1] if len(words) > 1 else None
    too_long = first.end - first.start > longest or (second and second.end - first.start > 2 * longest)
    if first.end - last > 4 * median and too_long:
        if second and second.end - second.start > longest:
            first.end = second.start = max(second.end / 2, second.end - longest)
        first.start = max(0, first.end - longest)


def _reconcile(words: list[Timing], median: float, segment: Bounds) -> None:
    """Trust the segment where a word reaches far over its bounds, else the word."""
    first, last = words[0], words[-1]
    if segment.start < first.end and segment.start - TRUSTED_S > first.start:
        first.start = max(0, min(first.end - median, segment.start))
    else:
        segment.start = first.start
    if segment.end > last.start and segment.end + TRUSTED_S < last.end:
        last.end = max(last.start + median, segment.end)
    else:
        segment.end = last.end
