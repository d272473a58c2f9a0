"""The formats of data sets: which files hold the clips of a shard, and which index names them at the end.

Duty: bytes of files, by format. What holds audio is written shard by shard; an index is made of the clips' rows alone,
as often as wanted. All names are made of splits, run ids and clip ids, so that none leaves the folder, whatever a
source is called. Knows rows and Arrow; no stores and no commits.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.readings import Encoded, as_wav

Row = dict[str, Any]  # of schemas.clips
File = tuple[str, bytes]  # path in the data set, content

Columns = Sequence[tuple[str, pa.DataType]]

_ROW_GROUP = 100  # clips: what a reader takes at once, and viewers show
CLIP_COLUMNS: Columns = (  # what goes with the audio of a clip, and its types
    ("clip_id", pa.string()),
    ("text", pa.string()),
    ("language", pa.string()),
    ("speaker", pa.string()),
    ("duration", pa.float64()),
    ("recording_id", pa.string()),
    ("uri", pa.string()),
    ("start", pa.float64()),
    ("end", pa.float64()),
    ("sample_rate", pa.int32()),
    ("seconds_per_letter", pa.float64()),
    ("snr_db", pa.float64()),
    ("bandwidth_hz", pa.float64()),
    ("loudness_lufs", pa.float64()),
    ("quality_mos", pa.float64()),
)
EXAMPLE_COLUMNS: Columns = (  # of an example for training Whisper
    ("clip_id", pa.string()),
    ("sequence", pa.string()),
    ("text", pa.string()),
    ("prompt", pa.string()),
    ("language", pa.string()),
    ("task", pa.string()),
    ("no_speech", pa.bool_()),
    ("duration", pa.float64()),
    ("recording_id", pa.string()),
    ("uri", pa.string()),
    ("source", pa.string()),
    ("start", pa.float64()),
    ("end", pa.float64()),
    ("sample_rate", pa.int32()),
    ("wer", pa.float64()),
)


@dataclass(frozen=True)
class Kind:
    """What a data set is made of: the table of its clips, and the columns that go with their audio."""

    table: str
    schema: pa.Schema
    columns: Columns


@dataclass(frozen=True)
class Layout:
    """A format: `place` is the file that a clip lies in, `shard` makes these files, `index` what names them."""

    place: Callable[[str, str, str, str], str]  # split, shard, clip id, suffix
    shard: Callable[[str, str, Sequence[Encoded], Columns], Iterator[File]]
    index: Callable[[str, Iterable[Row]], Iterator[File]] = lambda split, rows: iter(())
    without: Callable[[bytes, Collection[str]], bytes] | None = None  # a file without these clips; None: it has one
    shared: str = ""  # formats of the same name here share their audio files


def told(row: Row, columns: Columns) -> Row:
    """Return what goes with the audio of a clip."""
    full = row | {"duration": row["end"] - row["start"]}
    return {name: full[name] for name, _ in columns}


def _parquet(split: str, shard: str, clips: Sequence[Encoded], columns: Columns) -> Iterator[File]:
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    features = {b"huggingface": json.dumps(_features(columns)).encode()}
    schema = pa.schema([("audio", audio), *columns], metadata=features)
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, schema, compression="zstd") as writer:
        for at in range(0, len(clips), _ROW_GROUP):
            rows = [
                {"audio": {"bytes": clip.load(), "path": f"{clip.row['clip_id']}.{clip.suffix}"}}
                | told(clip.row, columns)
                for clip in clips[at : at + _ROW_GROUP]
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema))
    yield f"data/{split}-{shard}.parquet", buffer.getvalue()


def _parquet_without(data: bytes, clip_ids: Collection[str]) -> bytes:
    table = pq.read_table(io.BytesIO(data))
    rest = table.filter(pc.invert(pc.is_in(table["clip_id"], value_set=pa.array(clip_ids, pa.string()))))
    buffer = io.BytesIO()
    pq.write_table(rest, buffer, compression="zstd", row_group_size=_ROW_GROUP)
    return buffer.getvalue()


def _features(columns: Columns) -> dict[str, Any]:
    """Return what the library `datasets` reads from a Parquet file: that `audio` is to be decoded."""
    names = {pa.string(): "string", pa.float64(): "float64", pa.int32(): "int32", pa.bool_(): "bool"}
    values = {name: {"dtype": names[type_], "_type": "Value"} for name, type_ in columns}
    return {"info": {"features": {"audio": {"_type": "Audio"}, **values}}}


def _tar(split: str, shard: str, clips: Sequence[Encoded], columns: Columns) -> Iterator[File]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for clip in clips:
            words = json.dumps(told(clip.row, columns), ensure_ascii=False).encode()
            parts = {clip.suffix: clip.load(), "json": words, "txt": clip.row["text"].encode()}
            for suffix, data in parts.items():
                info = tarfile.TarInfo(f"{clip.row['clip_id']}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    yield f"webdataset/{split}-{shard}.tar", buffer.getvalue()


def _tar_without(data: bytes, clip_ids: Collection[str]) -> bytes:
    buffer = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as old,
        tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as new,
    ):
        for info in old:
            if info.name.partition(".")[0] not in clip_ids:
                new.addfile(info, old.extractfile(info))
    return buffer.getvalue()


def _wavs(split: str, shard: str, clips: Sequence[Encoded], columns: Columns) -> Iterator[File]:
    for clip in clips:
        yield _wav_place(split, shard, clip.row["clip_id"], ""), as_wav(clip.load())


def _wav_place(split: str, shard: str, clip_id: str, suffix: str) -> str:
    return f"ljspeech/{split}/wavs/{clip_id}.wav"


def _metadata(split: str, rows: Iterable[Row]) -> Iterator[File]:
    lines = ((row["clip_id"], *[" ".join(row["text"].replace("|", " ").split())] * 2) for row in rows)
    yield f"ljspeech/{split}/metadata.csv", "".join("|".join(line) + "\n" for line in lines).encode()


def _files(split: str, shard: str, clips: Sequence[Encoded], columns: Columns) -> Iterator[File]:
    for clip in clips:
        yield _file_place(split, shard, clip.row["clip_id"], clip.suffix), clip.load()


def _file_place(split: str, shard: str, clip_id: str, suffix: str) -> str:
    return f"audio/{split}/{clip_id}.{suffix}"


def _nemo(split: str, rows: Iterable[Row]) -> Iterator[File]:
    """NeMo finds audio by paths that are relative to the manifest."""
    buffer = io.BytesIO()
    for row in rows:
        entry = {
            "audio_filepath": _file_place(split, "", row["clip_id"], row["suffix"]),
            "duration": round(row["end"] - row["start"], 6),
            "text": row["text"],
            "lang": row["language"],
            **({"speaker": row["speaker"]} if row["speaker"] else {}),
            "clip_id": row["clip_id"],
        }
        buffer.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
    yield f"nemo-{split}.json", buffer.getvalue()


def _lhotse(split: str, rows: Iterable[Row]) -> Iterator[File]:
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as packed:
        for row in rows:
            packed.write(json.dumps(_lhotse_cut(split, row), ensure_ascii=False).encode() + b"\n")
    yield f"cuts-{split}.jsonl.gz", buffer.getvalue()


def _lhotse_cut(split: str, row: Row) -> Row:
    """Return a MonoCut over a recording of its own, as lhotse serialises it."""
    name, rate = row["clip_id"], row["sample_rate"]
    samples = round((row["end"] - row["start"]) * rate)
    length = samples / rate
    supervision = {
        "id": name,
        "recording_id": name,
        "start": 0.0,
        "duration": length,
        "channel": 0,
        "text": row["text"],
        "language": row["language"],
        **({"speaker": row["speaker"]} if row["speaker"] else {}),
    }
    source = {"type": "file", "channels": [0], "source": _file_place(split, "", name, row["suffix"])}
    recording = {
        "id": name,
        "sources": [source],
        "sampling_rate": rate,
        "num_samples": samples,
        "duration": length,
        "channel_ids": [0],
    }
    return {
        "id": name,
        "start": 0.0,
        "duration": length,
        "channel": 0,
        "supervisions": [supervision],
        "recording": recording,
        "type": "MonoCut",
    }


LAYOUTS: dict[str, Layout] = {
    "parquet": Layout(
        lambda split, shard, clip_id, suffix: f"data/{split}-{shard}.parquet", _parquet, without=_parquet_without
    ),
    "webdataset": Layout(
        lambda split, shard, clip_id, suffix: f"webdataset/{split}-{shard}.tar", _tar, without=_tar_without
    ),
    "ljspeech": Layout(_wav_place, _wavs, _metadata),
    "nemo": Layout(_file_place, _files, _nemo, shared="audio"),
    "lhotse": Layout(_file_place, _files, _lhotse, shared="audio"),
}


def index_names(formats: Sequence[str], splits: Sequence[str]) -> list[str]:
    """Return the files that name the clips of splits, in these formats."""
    return [path for name in formats for split in splits for path, _ in LAYOUTS[name].index(split, ())]


def chosen(formats: Sequence[str]) -> list[tuple[str, Layout, bool]]:
    """Return the layouts by name, and whether each is to write its audio: what is shared is written once."""
    seen: set[str] = set()
    found = []
    for name in dict.fromkeys(formats):
        layout = LAYOUTS[name]
        found.append((name, layout, not layout.shared or layout.shared not in seen))
        seen.add(layout.shared)
    return found
