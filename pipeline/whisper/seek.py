"""A window's tokens -> pieces with times, and how far to seek. Pure; knows no audio and no model.

Source: the loop of `whisper.transcribe` in the reference implementation.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.whisper.tokens import Layout

FRAMES_PER_TIMESTAMP = 2  # 0.02 s
SECONDS_PER_TIMESTAMP = 0.02


@dataclass(frozen=True, slots=True)
class Piece:
    """One segment's tokens (timestamps included); times count timestamps from the window's start."""

    start: int
    end: int
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cut:
    """A window's pieces, and how far to seek on."""

    pieces: list[Piece]
    advance: int  # frames
    whole: bool  # the output ends with a timestamp: the reference takes nothing of the window to be left

    @property
    def told(self) -> int:
        """Frames up to the end of the last piece."""
        return self.pieces[-1].end * FRAMES_PER_TIMESTAMP


def cut(tokens: list[int], frames: int, layout: Layout, *, timestamps: bool = True) -> Cut:
    """Return the pieces of a window of `frames` content frames; one where no `timestamps` are asked for.

    Adjacent timestamps cut. What follows the last pair is unfinished and decoded again from there, unless the output
    ends with a single timestamp: then it is a piece, and the whole window is done. Without a pair all is one piece.
    """
    if not timestamps:  # a model may write some all the same
        return Cut([Piece(0, frames // FRAMES_PER_TIMESTAMP, tuple(tokens))], frames, whole=False)
    first = layout.first_timestamp
    is_time = [token >= first for token in tokens]
    cuts = [i for i in range(1, len(tokens)) if is_time[i] and is_time[i - 1]]
    whole = is_time[-2:] == [False, True]
    if not cuts:
        times = [token - first for token in tokens if token >= first]
        end = times[-1] if times and times[-1] else frames // FRAMES_PER_TIMESTAMP
        return Cut([Piece(0, end, tuple(tokens))], frames, whole)
    if whole:
        cuts.append(len(tokens))
    starts = [0, *cuts[:-1]]
    pieces = [
        Piece(tokens[a] - first, tokens[b - 1] - first, tuple(tokens[a:b])) for a, b in zip(starts, cuts, strict=True)
    ]
    return Cut(pieces, frames if whole else pieces[-1].end * FRAMES_PER_TIMESTAMP, whole)
