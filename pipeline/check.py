"""Does an output keep the law? Recordings in = rows out, each exactly once, and every row where it belongs.

Reads an output part by part, whoever wrote it, and tells what it finds; changes nothing. Memory goes with the largest
part, and some 30 bytes a recording for the doubles. Knows parts and tables; no runs in progress, no audio.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import commits, run_files, storage
from pipeline.books import DECISIONS_LAYOUT, REVIEWS, TRANSCRIPTS
from pipeline.types import KEPT, Recording
from schemas import opinions, reviews
from schemas.decisions import DECISIONS
from schemas.recordings import RECORDINGS
from schemas.segments import SEGMENTS
from schemas.speakers import SPEAKERS
from schemas.words import WORDS

SCHEMAS = {
    "segments": SEGMENTS,
    "words": WORDS,
    "speakers": SPEAKERS,
    "recordings": RECORDINGS,
    "opinions": opinions.OPINIONS,
    "reviews": reviews.REVIEWS,
    "decisions": DECISIONS,
}
LAYOUTS = (TRANSCRIPTS.layout, REVIEWS.layout, DECISIONS_LAYOUT)
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
    "orphan": "segments, words, speakers or opinions of what has no row beside them",
    "count": "a number of segments or opinions that is not the one that the recording's row tells",
    "index": "numbers of segments or words that do not run 0, 1, 2, ..., or of opinions that do not rise",
    "reason": "a decision that its reason contradicts",
    "time": "times that run backwards, or lie outside of the recording",
    "run": "a row of a run that has left no file",
    "outdated": "opinions on a transcript that was made anew since; `transcribe --second-opinion` asks again",
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

    counts: Counter[str] = field(default_factory=lambda: Counter(parts=0))
    rows: list[pa.Table] = field(default_factory=list)  # recording_id, version, part of each recording or decision
    reviews: list[pd.DataFrame] = field(default_factory=list)  # of each row: recording_id, transcript, last opinion
    hashes: dict[str, set[str]] = field(default_factory=lambda: {layout.ledger: set() for layout in LAYOUTS})
    runs: set[str] = field(default_factory=set)


def check(out: str, sources: Iterable[Recording] = ()) -> Iterator[Finding | Checked]:
    """Yield what is wrong with the output, and last what was seen. `sources` are what should have rows."""
    seen = Checked()
    yield from _files(out)
    for layout, one in zip(LAYOUTS, (_part, _reviews, _decisions), strict=True):
        for name in _parts(out, layout.ledger):
            seen.counts.update({"parts": 1, **dict.fromkeys(layout.tables, 0)})
            yield from one(out, name, seen)
    yield from _together(out, seen)
    yield from _outdated(out, seen)
    yield from _against(sources, seen)
    yield seen


def _files(out: str) -> Iterator[Finding]:
    """Yield what lies in the folders that should not."""
    for layout in LAYOUTS:
        found = {}
        for table in layout.tables:
            listed = [name for name in storage.names(storage.join(out, table)) if not name.startswith((".", "_"))]
            found[table] = {name for name in listed if name.startswith("part-") and name.endswith(".parquet")}
            for name in sorted(set(listed) - found[table]):
                yield Finding("foreign", f"{table}/{name}", "no part file")
        needed = (*layout.beside, layout.ledger)
        expected = {name for table in needed for name in found[table]}
        for table in needed:
            for name in sorted(expected - found[table]):
                yield Finding("torn", f"{table}/{name}", "is missing, and is there in another table")
        for table in layout.optional:
            for name in sorted(found[table] - expected):
                yield Finding("torn", f"{table}/{name}", f"has no {' and no '.join(needed[::-1])}")
    for name in sorted(storage.names(storage.join(out, commits.STAGING))):
        if commits.is_ours(name) and not name.startswith("."):  # hidden ones were never written to their end
            yield Finding("pending", f"{commits.STAGING}/{name}", "staged, and not in its place")


def _parts(out: str, table: str) -> list[str]:
    names = storage.names(storage.join(out, table))
    return sorted(name for name in names if name.startswith("part-") and name.endswith(".parquet"))


def _part(out: str, name: str, seen: Checked) -> Iterator[Finding]:
    """Yield what is wrong inside of a part and its tables."""
    frames = yield from _frames(out, name, TRANSCRIPTS.layout.tables, seen)
    if frames is None:
        return
    recordings, segments, words = frames["recordings"], frames["segments"], frames["words"]
    _note(recordings, name, seen)
    yield from _ledger("recordings", name, recordings, seen)
    yield from _recordings(name, recordings)
    yield from _segments(name, recordings, segments)
    yield from _words(name, recordings, segments, words)
    yield from _speakers(name, recordings, segments, frames["speakers"])


def _reviews(out: str, name: str, seen: Checked) -> Iterator[Finding]:
    """Yield what is wrong inside of a part of second opinions."""
    frames = yield from _frames(out, name, REVIEWS.layout.tables, seen)
    if frames is None:
        return
    reviews, opinions = frames["reviews"], frames["opinions"]
    groups = opinions.groupby("recording_id", sort=False)["index"]
    told = reviews[["recording_id", "transcript"]].assign(last=reviews["recording_id"].map(groups.max()))
    seen.reviews.append(told)
    yield from _ledger("reviews", name, reviews, seen)
    where = f"opinions/{name}"
    for id_ in sorted(set(opinions["recording_id"]) - set(reviews["recording_id"])):
        yield Finding("orphan", where, f"opinions on {id_}, which has no row in this part")
    counted = reviews["recording_id"].map(groups.size()).fillna(0)
    for id_ in reviews.loc[counted != reviews["asked"], "recording_id"]:
        yield Finding("count", where, f"{id_} has not as many opinions as its row tells")
    for id_ in opinions.loc[groups.diff() <= 0, "recording_id"].unique():
        yield Finding("index", where, f"the opinions on {id_} are not in the order of its segments, each once")


def _decisions(out: str, name: str, seen: Checked) -> Iterator[Finding]:
    """Yield what is wrong inside of a part of decisions."""
    frames = yield from _frames(out, name, DECISIONS_LAYOUT.tables, seen)
    if frames is None:
        return
    decisions = frames["decisions"]
    _note(decisions, name, seen)
    yield from _ledger("decisions", name, decisions, seen)
    for row in decisions[decisions["keep"] != (decisions["reason"] == KEPT)].itertuples():
        yield Finding("reason", f"decisions/{name}", f"keep is {row.keep} for {row.recording_id}: {row.reason}")


def _note(rows: pd.DataFrame, name: str, seen: Checked) -> None:
    ids = pa.Table.from_pandas(rows[["recording_id", "version"]], preserve_index=False)
    seen.rows.append(ids.append_column("part", pa.repeat(pa.scalar(name), len(rows))))


def _frames(
    out: str, name: str, tables: Sequence[str], seen: Checked
) -> Generator[Finding, None, dict[str, pd.DataFrame] | None]:
    """Yield what keeps a part from being read; return its tables, None where one cannot be."""
    frames: dict[str, pd.DataFrame] = {}
    for table in tables:
        where, schema = f"{table}/{name}", SCHEMAS[table]
        uri = storage.join(out, table, name)
        if not storage.exists(uri):
            frames[table] = schema.empty_table().to_pandas()
            continue
        try:
            found = pq.read_table(io.BytesIO(storage.read_bytes(uri)))
        except (pa.ArrowInvalid, OSError) as error:
            yield Finding("unreadable", where, str(error).partition("\n")[0])
            return None
        if differences := _differences(found.schema, schema):
            yield Finding("schema", where, differences)
            return None
        frames[table] = found.to_pandas()
        seen.counts[table] += len(found)
    return frames


def _differences(found: pa.Schema, expected: pa.Schema) -> str:
    types = {one.name: one.type for one in found}
    wrong = [f"{one.name} is missing" for one in expected if one.name not in types]
    wrong += [
        f"{one.name} is {types[one.name]}, not {one.type}"
        for one in expected
        if one.name in types and types[one.name] != one.type
    ]
    return "; ".join(wrong + [f"{name} is unknown" for name in types if name not in expected.names])


def _ledger(table: str, name: str, rows: pd.DataFrame, seen: Checked) -> Iterator[Finding]:
    """Yield the rows of recordings that are not where they belong, or contradict themselves."""
    seen.hashes[table].update(rows["config_hash"])
    seen.runs.update(rows["run_id"])
    where = f"{table}/{name}"
    for row in rows[rows["part"] != name].itertuples():
        yield Finding("misplaced", where, f"the row of {row.recording_id} names the part {row.part}")
    ok = rows["status"] == "ok"
    fits = rows["status"].isin(STATUSES) & (ok == rows["error_kind"].isna())
    for row in rows[~fits].itertuples():
        yield Finding("status", where, f"{row.recording_id} is {row.status}, with the error {row.error_kind}")


def _recordings(name: str, recordings: pd.DataFrame) -> Iterator[Finding]:
    where = f"recordings/{name}"
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
    for table, hashes in seen.hashes.items():
        if len(hashes) > 1:
            yield Finding("config", table, f"rows of {len(hashes)} configurations: {', '.join(sorted(hashes))}")
    for run_id in sorted(seen.runs - set(run_files.ids(out))):
        yield Finding("run", f"{run_files.RUNS}/{run_id}.json", "is missing")
    if seen.rows:
        counts = pc.value_counts(pa.concat_tables(seen.rows)["recording_id"])
        for id_ in counts.filter(pc.greater(pc.struct_field(counts, "counts"), 1)).to_pylist():
            where = " and ".join(table for table in ("recordings", "decisions") if seen.hashes[table])
            yield Finding("double", where, f"{id_['values']} has {id_['counts']} rows")


def _outdated(out: str, seen: Checked) -> Iterator[Finding]:
    """Yield the opinions that are there twice, on what is not there, or not there any more."""
    if not seen.reviews:
        return
    reviews = pd.concat(seen.reviews)
    for id_ in reviews.loc[reviews["recording_id"].duplicated(), "recording_id"].unique():
        yield Finding("double", "reviews", f"{id_} has more than one row")
    reviews = reviews.drop_duplicates("recording_id").set_index("recording_id")
    left = reviews.index
    for name in _parts(out, "recordings"):
        try:
            content = io.BytesIO(storage.read_bytes(storage.join(out, "recordings", name)))
            told = pq.read_table(content, columns=["recording_id", "run_id", "segments"]).to_pandas()
        except (pa.ArrowInvalid, OSError):
            continue  # told of before
        both = told.join(reviews, on="recording_id", how="inner")
        left = left.difference(both["recording_id"])
        fresh = both["run_id"] == both["transcript"]
        for id_ in both.loc[~fresh, "recording_id"]:
            yield Finding("outdated", "reviews", f"{id_} was transcribed anew since")
        for id_ in both.loc[fresh & (both["last"] >= both["segments"]), "recording_id"]:
            yield Finding("orphan", "opinions", f"opinions on segments of {id_} that are not there")
    for id_ in left:
        yield Finding("orphan", "reviews", f"{id_} has no row in recordings")


def _against(sources: Iterable[Recording], seen: Checked) -> Iterator[Finding]:
    """Yield the recordings of the sources without a row of the version that they have now."""
    rows = pa.concat_tables(seen.rows) if seen.rows else None
    versions = dict(zip(rows["recording_id"].to_pylist(), rows["version"].to_pylist(), strict=True)) if rows else {}
    for recording in sources:
        if recording.id not in versions:
            yield Finding("missing", recording.uri, "has no row")
        elif versions[recording.id] != recording.version:
            yield Finding("changed", recording.uri, "is not the file any more that its row was written from")
