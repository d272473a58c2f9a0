"""Voices -> the speakers of a recording: who is who, when each speaks, and whose each segment and word is.

Duty: what can only be told when a recording is complete. Voices that sound alike are one speaker's; those of one window
are different people, whatever they sound like. Pure functions on the types; knows no audio and no models.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from pipeline.types import AT_LEAST_ONE, SAMPLE_RATE, Segment, Span, Speaker, Transcript, Voice, setting

SURE = round(1.0 * SAMPLE_RATE)  # alone: what a voice must say to found a speaker
MOST = 3000  # voices that found speakers, the longest: the distances of all pairs are in memory
APART = 2.0  # distance of two voices of one window: as far as vectors can be
BRIDGE = round(0.2 * SAMPLE_RATE)  # a pause inside a turn
NEAR = round(0.5 * SAMPLE_RATE)  # from a word to the turn that it belongs to, where it lies in none

Vectors = NDArray[np.float64]  # [voices, size], each of length 1


@dataclass(frozen=True)
class SpeakerOptions:
    """Whether speakers are told apart, and how different two of them sound."""

    speakers: bool = setting(False, "Tell who speaks when; needs the extra `speakers`.")
    speaker_threshold: float = setting(
        0.54, "Voices are one speaker's up to this cosine distance, a mean over pairs; greater finds fewer speakers."
    )
    max_speakers: int | None = setting(
        None, "Most speakers of a recording; by default their voices alone tell.", within=AT_LEAST_ONE
    )
    link_speakers: bool = setting(
        False, "Tell, too, who is heard in several of the recordings in --out: OUT/people.", rows=False
    )
    link_threshold: float = setting(
        0.55, "Speakers of several recordings are one person up to this cosine distance, a mean over pairs.", rows=False
    )


def tell(transcripts: Iterable[Transcript], options: SpeakerOptions) -> tuple[Speaker, ...]:
    """Return the speakers of a recording by their first words. `transcripts` are its passages, in order."""
    heard = [(transcript.passage, voice) for transcript in transcripts for voice in transcript.voices]
    if not heard:
        return ()
    owners = _owners(heard, options)
    vectors = np.array([voice.vector for _, voice in heard])
    found = []
    for owner in np.unique(owners):
        mine = np.flatnonzero(owners == owner)
        spans = _joined(span for index in mine for span in heard[index][1].spans)
        weights = np.array([heard[index][1].alone + 1.0 for index in mine])
        found.append((spans, _unit(weights @ vectors[mine])))
    found.sort(key=lambda one: (one[0][0].start, one[0][0].end))
    return tuple(
        Speaker(f"Speaker {number}", spans, tuple(map(float, vector)))
        for number, (spans, vector) in enumerate(found, 1)
    )


def attributed(segment: Segment, turns: Turns) -> Segment:
    """Return the segment with its speaker, its words', and the share of it in which more than one speaks.

    A segment is whose most of its words are, by their time; without words, whoever speaks most of its time.
    """
    span = Span(segment.start, segment.end)
    words = tuple(replace(word, speaker=turns.of(Span(word.start, word.end))) for word in segment.words)
    shares: dict[str, int] = defaultdict(int)
    for word in words:
        if word.speaker is not None:
            shares[word.speaker] += max(1, word.end - word.start)
    speaker = max(shares, key=lambda name: shares[name]) if shares else turns.of(span)
    return replace(segment, speaker=speaker, words=words, overlap=turns.overlap(span))


class Turns:
    """Who speaks when, of a recording: asked for any stretch."""

    def __init__(self, speakers: Iterable[Speaker]) -> None:
        """Take the speakers of a recording; the turns of each are in order and do not overlap."""
        self._turns = [(one.label, one.spans) for one in speakers]

    def of(self, stretch: Span) -> str | None:
        """Return who speaks most of a stretch, or, where nobody does, close by; None where nobody does that either."""
        wide = Span(stretch.start - NEAR, stretch.end + NEAR)
        for asked in (stretch, wide):
            shares: dict[str, int] = defaultdict(int)
            for span, label in self._within(asked):
                shares[label] += span.overlap(asked)
            if shares:
                return max(shares, key=lambda label: shares[label])
        return None

    def overlap(self, stretch: Span) -> float:
        """Return the share of a stretch in which more than one speaks."""
        edges = sorted(
            edge
            for span, _ in self._within(stretch)
            for edge in ((max(span.start, stretch.start), 1), (min(span.end, stretch.end), -1))
        )
        speaking, since, shared = 0, 0, 0
        for at, change in edges:
            shared += at - since if speaking > 1 else 0
            speaking, since = speaking + change, at
        return shared / len(stretch) if len(stretch) > 0 else 0.0

    def _within(self, stretch: Span) -> Iterator[tuple[Span, str]]:
        """Yield the turns that share samples with a stretch, without a look at all the others."""
        for label, spans in self._turns:
            first = bisect_right(spans, stretch.start, key=attrgetter("end"))
            for span in spans[first : bisect_left(spans, stretch.end, key=attrgetter("start"))]:
                yield span, label


def clusters(
    vectors: Vectors, threshold: float, most: int | None = None, apart: Iterable[tuple[int, int]] = ()
) -> NDArray[np.int64]:
    """Return a number for each vector, equal for those that belong together: average linkage by cosine distance.

    Clusters are joined up to the mean distance `threshold`, and beyond it while there are more than `most`. Pairs in
    `apart` count as far from each other, whatever their vectors are.
    """
    if len(vectors) < 2:
        return np.zeros(len(vectors), np.int64)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    distances = np.clip(1.0 - vectors @ vectors.T, 0.0, APART)
    for one, other in apart:
        distances[one, other] = distances[other, one] = APART
    np.fill_diagonal(distances, 0.0)
    tree = linkage(squareform(distances, checks=False), "average")
    found = fcluster(tree, threshold, "distance")
    if most is not None and found.max() > most:
        found = fcluster(tree, most, "maxclust")
    return np.asarray(found, np.int64)


def _owners(heard: Sequence[tuple[int, Voice]], options: SpeakerOptions) -> NDArray[np.int64]:
    """Return the speaker of each voice, as a number.

    Voices that are long enough found speakers; each voice is then given to the one that it sounds most like.
    """
    vectors = np.array([voice.vector for _, voice in heard])
    alone = np.array([voice.alone for _, voice in heard])
    founders = np.flatnonzero(alone >= min(SURE, alone.max()))
    if len(founders) > MOST:
        founders = np.sort(founders[np.argsort(-alone[founders], kind="stable")[:MOST]])
    windows: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, (passage, voice) in enumerate(heard):
        windows[passage, voice.window].append(index)
    places = {index: place for place, index in enumerate(founders.tolist())}
    apart = [
        (places[one], places[other])
        for together in windows.values()
        for one in together
        for other in together
        if one < other and one in places and other in places
    ]
    labels = clusters(vectors[founders], options.speaker_threshold, options.max_speakers, apart)
    centres = np.stack([_unit(vectors[founders[labels == label]].sum(0)) for label in np.unique(labels)])
    owners = np.zeros(len(heard), np.int64)
    for together in windows.values():
        owners[together] = _shared_out(vectors[together] @ centres.T)
    return owners


def _shared_out(likeness: Vectors) -> NDArray[np.int64]:
    """Return a speaker for each voice of a window, [voices, speakers]: different ones, as long as there are so many."""
    voices, speakers = likeness.shape
    if voices == 1 or speakers < voices:
        return np.asarray(likeness.argmax(1), np.int64)
    from scipy.optimize import linear_sum_assignment

    return np.asarray(linear_sum_assignment(-likeness)[1], np.int64)


def _joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the spans in order, those with no more than a breath between them as one."""
    joined: list[Span] = []
    for span in sorted(spans, key=attrgetter("start", "end")):
        if joined and span.start - joined[-1].end <= BRIDGE:
            joined[-1] = Span(joined[-1].start, max(joined[-1].end, span.end))
        else:
            joined.append(span)
    return tuple(joined)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
