"""Speakers of recordings -> people: who is heard in more than one recording of an output.

Duty: the table `OUT/people`, made of `OUT/speakers` alone and anew whenever a job ends. What it holds does not depend
on the order of recordings, on the runs that they came from, or on what died: it is a pure function of committed rows,
written as one file in one step. Knows no audio.

Speakers are joined by average linkage, as voices are in a recording. That joins nothing across groups between which no
single pair is close enough, so it is done group by group: exactly what it would be over all pairs, without their
distances in memory.
"""

from __future__ import annotations

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import parts, storage
from pipeline.speakers import clusters
from schemas.people import PEOPLE

TABLE = "people"
PART = "part-00000.parquet"
BLOCK = 2000  # speakers whose distances to all others are in memory at a time
LIMIT = 8000  # in a group: beyond it, the group is split by a stricter distance first

Vectors = NDArray[np.float64]


def link(out: str, threshold: float) -> int:
    """Write the table of people anew, and return how many speak in more than one recording."""
    folder = storage.join(out, "speakers")
    names = [name for name in storage.names(folder) if name.startswith("part-") and name.endswith(".parquet")]
    wanted = ["recording_id", "speaker", "speech_s", "vector"]
    read = [pq.read_table(io.BytesIO(storage.read_bytes(storage.join(folder, name))), columns=wanted) for name in names]
    rows = pa.concat_tables(read) if read else pa.table({name: [] for name in wanted})
    rows = rows.sort_by([("recording_id", "ascending"), ("speaker", "ascending")])
    table = _people(rows, threshold)
    storage.write_bytes(storage.join(out, TABLE, PART), parts.encode(table))
    heard = {(row["person"], row["recording_id"]) for row in table.select(["person", "recording_id"]).to_pylist()}
    _, recordings = np.unique([person for person, _ in heard] or [""], return_counts=True)
    return int((recordings > 1).sum())


def people(vectors: Vectors, threshold: float) -> NDArray[np.int64]:
    """Return a number for each vector, equal for those within the mean distance `threshold` by average linkage."""
    owners = np.zeros(len(vectors), np.int64)
    count = 0
    groups = _groups(vectors, threshold)
    for group in np.unique(groups):
        mine = np.flatnonzero(groups == group)
        whole = len(mine) <= LIMIT
        found = clusters(vectors[mine], threshold) if whole else people(vectors[mine], 0.9 * threshold)
        owners[mine] = count + found
        count += int(found.max()) + 1
    return owners


def _groups(vectors: Vectors, threshold: float) -> NDArray[np.int64]:
    """Return the group of each vector: two are in one where a chain of close pairs leads from one to the other."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(vectors)
    groups = np.arange(count)
    for begin in range(0, count, BLOCK):
        near = 1.0 - vectors[begin : begin + BLOCK] @ vectors.T <= threshold
        ones, others = np.nonzero(near)
        _, first = np.unique(groups, return_index=True)  # those who are joined already stay so
        ones = np.concatenate([ones + begin, np.arange(count)])
        others = np.concatenate([others, first[groups]])
        graph = coo_array((np.ones(len(ones), np.int8), (ones, others)), shape=(count, count))
        groups = np.asarray(connected_components(graph, directed=False)[1], np.int64)
    return groups


def _people(rows: pa.Table, threshold: float) -> pa.Table:
    """Return the table of `schemas.people.PEOPLE`: people by how long they speak."""
    if not len(rows):
        return PEOPLE.empty_table()
    vectors = np.array(rows["vector"].to_pylist(), np.float64)
    speech_s = rows["speech_s"].to_numpy()
    _, owners = np.unique(people(vectors, threshold), return_inverse=True)
    totals = np.bincount(owners, weights=speech_s)
    ranks = np.empty(len(totals), np.int64)
    ranks[np.argsort(-totals, kind="stable")] = np.arange(1, len(totals) + 1)
    centres = np.stack([speech_s[owners == one] @ vectors[owners == one] for one in range(len(totals))])
    centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    columns = {
        "person": pa.array([f"Person {rank}" for rank in ranks[owners]]),
        "recording_id": rows["recording_id"],
        "speaker": rows["speaker"],
        "speech_s": rows["speech_s"],
        "likeness": pa.array((vectors * centres[owners]).sum(1)),
    }
    return pa.table(columns).cast(PEOPLE)
