"""Does an output keep the law? Recordings in = rows out, each exactly once, and every row where it belongs.

Reads an output part by part, whoever wrote it, and tells what it finds; changes nothing. Memory goes with the largest
part, and some 30 bytes a recording for the doubles. Knows parts and tables; no runs in progress, no audio.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import commits, run_files, storage
from pipeline.books import TRANSCRIPTS
from pipeline.types import Recording
from schemas.recordings import RECORDINGS
from schemas.segments import SEGMENTS
from schemas.speakers import SPEAKERS
from schemas.words import WORDS

SCHEMAS = {"segments": SEGMENTS, "words": WORDS, "speakers": SPEAKERS, "recordings": RECORDINGS}
OPTIONAL = TRANSCRIPTS.layout.optional
STATUSES = ("ok", "partial", "failed")
SLACK_S = 0.001  # times are rounded when samples become seconds

KINDS = {
    "foreign": "a file that is not bulkscribe's",
    "pending": "a commit that a dead run has left undone; the next `transcribe` ends it",
    "torn": "a part that is missing in one of its tables",
    "unreadable": "a part that is no whole Parquet file",
    "schema": "columns or types that are not this version's",
    "double": "a recording with more than one row",
    "misplaced": "a row that names another part than its own",
    "config": "rows of more than one configuration",
    "status": "a row whose status and error do not fit together",
    "orphan": "segments, words or speakers of a recording that has no row beside them",
    "count": "a number of segments that is not the one that the recording's row tells",
    "index": "numbers of segments or words that do not run 0, 1, 2, ...",
    "time": "times that run backwards, or lie outside of the recording",
    "run": "a row of a run that has left no file",
    "missing": "a recording of the sources that has no row",
    "changed": "a recording of the sources that has changed since its row was written",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    kind: str  # of KINDS
    where: str  # path in the output, or a recording's URI
    message: str


@dataclass
class Checked:
    """What was seen."""

    counts: Counter[str] = field(default_factory=lambda: Counter(parts=0, **dict.fromkeys(SCHEMAS, 0)))
    rows: list[pa.Table] = field(default_factory=list)  # recording_id, version, part of each row
    hashes: set[str] = field(default_factory=set)
    runs: set[str] = field(default_factory=set)


def check(out: str, sources: Iterable[Recording] = ()) -> Iterator[Finding | Checked]:
    """Yield what is wrong with the output, and last what was seen. `sources` are what should have rows."""
    seen = Checked()
    yield from _files(out)
    for name in _parts(out):
        seen.counts["parts"] += 1
        yield from _part(out, name, seen)
    yield from _together(out, seen)
    yield from _against(sources, seen)
    yield seen


def _files(out: str) -> Iterator[Finding]:
    """Yield what lies in the folders that should not."""
    found = {}
    for table in TRANSCRIPTS.layout.tables:
        listed = [name for name in storage.names(storage.join(out, table)) if not name.startswith((".", "_"))]
        found[table] = {name for name in listed if name.startswith("part-") and name.endswith(".parquet")}
        for name in sorted(set(listed) - found[table]):
            yield Finding("foreign", f"{table}/{name}", "no part file")
    for table, names in found.items():
        expected = found["recordings"] | found["segments"] if table not in OPTIONAL else set()
        for name in sorted(expected - names):
            yield Finding("torn", f"{table}/{name}", "is missing, and is there in another table")
    for table in OPTIONAL:
        for name in sorted(found[table] - found["recordings"] - found["segments"]):
            yield Finding("torn", f"{table}/{name}", "has no recordings and no segments")
    for name in sorted(storage.names(storage.join(out, commits.STAGING))):
        if commits.is_ours(name) and not name.startswith("."):  # hidden ones were never written to their end
            yield Finding("pending", f"{commits.STAGING}/{name}", "staged, and not in its place")


def _parts(out: str) -> list[str]:
    names = storage.names(storage.join(out, "recordings"))
    return sorted(name for name in names if name.startswith("part-") and name.endswith(".parquet"))


def _part(out: str, name: str, seen: Checked) -> Iterator[Finding]:
    """Yield what is wrong inside of a part and its tables."""
    frames: dict[str, pd.DataFrame] = {}
    for table, schema in SCHEMAS.items():
        where = f"{table}/{name}"
        uri = storage.join(out, table, name)
        if not storage.exists(uri):
            frames[table] = schema.empty_table().to_pandas()
            continue
        try:
            found = pq.read_table(io.BytesIO(storage.read_bytes(uri)))
        except (pa.ArrowInvalid, OSError) as error:
            yield Finding("unreadable", where, str(error).partition("\n")[0])
            return
        if differences := _differences(found.schema, schema):
            yield Finding("schema", where, differences)
            return
        frames[table] = found.to_pandas()
        seen.counts[table] += len(found)
    recordings, segments, words = frames["recordings"], frames["segments"], frames["words"]
    ids = pa.Table.from_pandas(recordings[["recording_id", "version"]], preserve_index=False)
    seen.rows.append(ids.append_column("part", pa.repeat(pa.scalar(name), len(recordings))))
    seen.hashes.update(recordings["config_hash"])
    seen.runs.update(recordings["run_id"])
    yield from _recordings(name, recordings)
    yield from _segments(name, recordings, segments)
    yield from _words(name, recordings, segments, words)
    yield from _speakers(name, recordings, segments, frames["speakers"])


def _differences(found: pa.Schema, expected: pa.Schema) -> str:
    types = {one.name: one.type for one in found}
    wrong = [f"{one.name} is missing" for one in expected if one.name not in types]
    wrong += [
        f"{one.name} is {types[one.name]}, not {one.type}"
        for one in expected
        if one.name in types and types[one.name] != one.type
    ]
    return "; ".join(wrong + [f"{name} is unknown" for name in types if name not in expected.names])


def _recordings(name: str, recordings: pd.DataFrame) -> Iterator[Finding]:
    where = f"recordings/{name}"
    for row in recordings[recordings["part"] != name].itertuples():
        yield Finding("misplaced", where, f"the row of {row.recording_id} names the part {row.part}")
    ok = recordings["status"] == "ok"
    fits = recordings["status"].isin(STATUSES) & (ok == recordings["error_kind"].isna())
    for row in recordings[~fits].itertuples():
        yield Finding("status", where, f"{row.recording_id} is {row.status}, with the error {row.error_kind}")
    for row in recordings[(recordings["status"] == "failed") & (recordings["segments"] > 0)].itertuples():
        yield Finding("status", where, f"{row.recording_id} is failed, with {row.segments} segments")


def _segments(name: str, recordings: pd.DataFrame, segments: pd.DataFrame) -> Iterator[Finding]:
    where = f"segments/{name}"
    for id_, group in segments[~segments["recording_id"].isin(recordings["recording_id"])].groupby("recording_id"):
        yield Finding("orphan", where, f"{len(group)} segments of {id_}, which has no row in this part")
    groups = segments.groupby("recording_id", sort=False)
    flagged = segments["flags"].map(len) > 0
    told = recordings.set_index("recording_id")
    counted = pd.DataFrame({"segments": groups.size(), "flagged": flagged.groupby(segments["recording_id"]).sum()})
    counted = counted.reindex(told.index, fill_value=0)
    for column, mine in (("segments", "segments"), ("flagged_segments", "flagged")):
        for id_ in told.index[told[column].to_numpy() != counted[mine].to_numpy()].unique():
            yield Finding("count", where, f"{id_} has not as many {column} as its row tells")
    ranks = groups["index"].rank(method="first") - 1
    for id_ in segments.loc[ranks != segments["index"], "recording_id"].unique():
        yield Finding("index", where, f"the segments of {id_} are not numbered 0, 1, 2, ...")
    yield from _times(where, segments, recordings)


def _words(name: str, recordings: pd.DataFrame, segments: pd.DataFrame, words: pd.DataFrame) -> Iterator[Finding]:
    where = f"words/{name}"
    owners = pd.MultiIndex.from_frame(segments[["recording_id", "index"]])
    lost = ~pd.MultiIndex.from_frame(words[["recording_id", "segment"]]).isin(owners)
    for id_, group in words[lost].groupby("recording_id"):
        yield Finding("orphan", where, f"{len(group)} words of segments of {id_} that are not there")
    ranks = words.groupby(["recording_id", "segment"], sort=False)["index"].rank(method="first") - 1
    for id_ in words.loc[ranks != words["index"], "recording_id"].unique():
        yield Finding("index", where, f"the words of a segment of {id_} are not numbered 0, 1, 2, ...")
    yield from _times(where, words, recordings)


def _speakers(name: str, recordings: pd.DataFrame, segments: pd.DataFrame, speakers: pd.DataFrame) -> Iterator[Finding]:
    where = f"speakers/{name}"
    lost = ~speakers["recording_id"].isin(recordings["recording_id"])
    for id_, group in speakers[lost].groupby("recording_id"):
        yield Finding("orphan", where, f"{len(group)} speakers of {id_}, which has no row in this part")
    known = pd.MultiIndex.from_frame(speakers[["recording_id", "speaker"]])
    said = segments.dropna(subset="speaker")
    strange = ~pd.MultiIndex.from_frame(said[["recording_id", "speaker"]]).isin(known)
    for id_, group in said[strange].groupby("recording_id"):
        yield Finding("orphan", f"segments/{name}", f"{len(group)} segments of {id_} are a speaker's who has no row")
    turns = speakers[["recording_id", "turns"]].explode("turns").dropna()
    spans = pd.DataFrame(turns["turns"].tolist(), columns=["start", "end"])
    yield from _times(where, spans.assign(recording_id=turns["recording_id"].to_numpy()), recordings)


def _times(where: str, rows: pd.DataFrame, recordings: pd.DataFrame) -> Iterator[Finding]:
    """Yield the recordings with a time that is no number, runs backwards or leaves the recording."""
    told = recordings.drop_duplicates("recording_id").set_index("recording_id")[["start_s", "duration_s"]]
    begin, length = told.reindex(rows["recording_id"]).astype(float).to_numpy().T
    inside = ~(rows["start"] < begin - SLACK_S) & (rows["start"] <= rows["end"])
    inside &= ~(rows["end"] > begin + length + SLACK_S) & (rows["start"] >= 0)
    for id_, group in rows[~inside].groupby("recording_id"):
        first = group.iloc[0]
        yield Finding("time", where, f"{len(group)} rows of {id_}, for example {first['start']} to {first['end']} s")


def _together(out: str, seen: Checked) -> Iterator[Finding]:
    """Yield what only all parts together tell."""
    if len(seen.hashes) > 1:
        yield Finding(
            "config", "recordings", f"rows of {len(seen.hashes)} configurations: {', '.join(sorted(seen.hashes))}"
        )
    for run_id in sorted(seen.runs - set(run_files.ids(out))):
        yield Finding("run", f"{run_files.RUNS}/{run_id}.json", "is missing")
    if not seen.rows:
        return
    counts = pc.value_counts(pa.concat_tables(seen.rows)["recording_id"])
    for id_ in counts.filter(pc.greater(pc.struct_field(counts, "counts"), 1)).to_pylist():
        yield Finding("double", "recordings", f"{id_['values']} has {id_['counts']} rows")


def _against(sources: Iterable[Recording], seen: Checked) -> Iterator[Finding]:
    """Yield the recordings of the sources without a row of the version that they have now."""
    rows = pa.concat_tables(seen.rows) if seen.rows else None
    versions = dict(zip(rows["recording_id"].to_pylist(), rows["version"].to_pylist(), strict=True)) if rows else {}
    for recording in sources:
        if recording.id not in versions:
            yield Finding("missing", recording.uri, "has no row")
        elif versions[recording.id] != recording.version:
            yield Finding("changed", recording.uri, "is not the file any more that its row was written from")
