"""Which part of a file's audio is listened to: a track, mixed or one of its channels.

Duty: that choice, and what else there is to listen to. Knows no ffmpeg but its counting.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from pipeline.types import Media


@dataclass(frozen=True, slots=True)
class Selection:
    """What is listened to. Tracks and channels are counted from 0, as ffmpeg does."""

    track: int = 0
    channel: int | None = None  # None mixes all channels of the track

    @property
    def name(self) -> str:
        """What the tables call it: "mix", "channel 1", "track 1 mix"."""
        heard = "mix" if self.channel is None else f"channel {self.channel}"
        return heard if self.track == 0 else f"track {self.track} {heard}"

    @classmethod
    def of(cls, name: str | None) -> Selection:
        """Return the selection that the tables call `name`; the default one for none."""
        words = (name or "").split()
        numbers = {word: int(number) for word, number in pairwise(words) if number.isdigit()}
        return cls(numbers.get("track", 0), numbers.get("channel"))


MIX = Selection()


def alternatives(media: Media) -> tuple[Selection, ...]:
    """Return what else can be listened to when the mix has no speech: single channels, then further tracks."""
    channels = media.channels or 1
    single = tuple(Selection(0, channel) for channel in range(channels)) if channels > 1 else ()
    return single + tuple(Selection(track) for track in range(1, media.tracks or 1))
