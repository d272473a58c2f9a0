"""Recordings and segments -> manifests that training toolkits read: NeMo's and lhotse's, in shards.

Duty: the fields that each toolkit wants, and files of bounded size. Holds a shard in memory, never a corpus. The
formats are written after their documentation, without the toolkits; tests load them back with lhotse.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pipeline import storage
from pipeline.subtitles import Row, plain
from pipeline.transcripts import corpus_speaker

SHARD = 100_000  # segments in a shard; a recording is never parted
_SCORES = ("avg_logprob", "compression_ratio", "no_speech_prob", "evidence_per_token", "speech_ratio", "flags")
_CHANNEL = re.compile(r"channel (\d+)$")


class Manifests:
    """Writes manifests of one kind below a folder as recordings come; the last shard when it is closed."""

    def __init__(self, kind: str, folder: str, shard: int = SHARD) -> None:
        """`kind` is one of MANIFESTS."""
        self.files = 0
        self._kind, self._folder, self._shard = kind, folder, shard
        self._number = self._held = 0
        self._lines: dict[str, list[str]] = {}

    def add(self, recording: Row, rows: Sequence[Row]) -> None:
        """Take a recording with the segments of it that are wanted."""
        spoken = [row for row in rows if plain(row["text"]) and row["end"] > row["start"]]
        for name, lines in MANIFESTS[self._kind](recording, spoken):
            self._lines.setdefault(name, []).extend(json.dumps(line, ensure_ascii=False) for line in lines)
        self._held += max(1, len(spoken))
        if self._held >= self._shard:
            self.close()

    def close(self) -> None:
        """Write what is held."""
        for name, lines in self._lines.items():
            uri = storage.join(self._folder, self._kind, name.format(self._number))
            data = "".join(f"{line}\n" for line in lines).encode()
            storage.write_bytes(uri, gzip.compress(data, mtime=0) if uri.endswith(".gz") else data)
            self.files += 1
        self._number, self._held = self._number + bool(self._lines), 0
        self._lines = {}


def nemo(recording: Row, rows: Sequence[Row]) -> Iterator[tuple[str, Iterable[dict[str, Any]]]]:
    """Yield the lines of NeMo's manifest, one a segment: a stretch of a file with its text."""
    yield "manifest_{}.json", [_nemo(recording, row) for row in rows]


def lhotse(recording: Row, rows: Sequence[Row]) -> Iterator[tuple[str, Iterable[dict[str, Any]]]]:
    """Yield lhotse's Recording, and its SupervisionSegments."""
    rate, channels = recording["sample_rate"] or 16_000, recording["channels"] or 1
    path = storage.local_path(recording["uri"])
    samples = round(
        ((recording.get("start_s") or 0.0) + recording["duration_s"]) * rate
    )  # at least, of a stretch's file
    heard = list(range(channels))
    about = {
        "id": recording["recording_id"],
        "sources": [{"type": "url" if path is None else "file", "channels": heard, "source": path or recording["uri"]}],
        "sampling_rate": rate,
        "num_samples": samples,
        "duration": samples / rate,
        "channel_ids": heard,
    }
    yield "recordings.{:06}.jsonl.gz", [about]
    chosen = _CHANNEL.match(recording.get("selection") or "")
    channel = int(chosen[1]) if chosen else heard if channels > 1 else 0
    yield "supervisions.{:06}.jsonl.gz", [_supervision(recording, row, channel) for row in rows]


MANIFESTS = {"nemo": nemo, "lhotse": lhotse}


def _nemo(recording: Row, row: Row) -> dict[str, Any]:
    line = {
        "audio_filepath": storage.local_path(recording["uri"]) or recording["uri"],
        "offset": round(row["start"], 4),
        "duration": round(row["end"] - row["start"], 4),
        "text": plain(row["text"]),
        "lang": row["language"],
    }
    return line | _speaker(recording, row)


def _supervision(recording: Row, row: Row, channel: int | list[int]) -> dict[str, Any]:
    line = {
        "id": f"{recording['recording_id']}-{row['index']:06}",
        "recording_id": recording["recording_id"],
        "start": round(row["start"], 4),
        "duration": round(row["end"] - row["start"], 4),
        "channel": channel,
        "text": plain(row["text"]),
        "language": row["language"],
        "custom": {name: row[name] for name in _SCORES if row.get(name) is not None},
    }
    return line | _speaker(recording, row)


def _speaker(recording: Row, row: Row) -> dict[str, str]:
    label = corpus_speaker(recording["recording_id"], row.get("speaker"))
    return {"speaker": label} if label else {}
