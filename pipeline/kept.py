"""`OUT/kept.jsonl`: the manifest of what a filter has kept, made from its decisions.

Knows parts and rows; nothing of how the decisions came to be.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from pipeline import parts, storage
from pipeline.books import DECISIONS_LAYOUT
from pipeline.decision_rows import manifest_line
from pipeline.errors import UserError

KEPT = "kept.jsonl"


def decisions(out: str) -> Iterator[pa.Table]:
    """Yield the decisions in `out`, part by part. UserError where there are none."""
    names = parts.names(out, DECISIONS_LAYOUT)
    if not names:
        raise UserError(f"there are no decisions in {out}", f"bulkscribe filter SOURCE --out {out} makes some")
    for name in names:
        yield parts.read(out, DECISIONS_LAYOUT.ledger, name)


def write(out: str, sure: float) -> Counter[str]:
    """Write the manifest, over an old one, in the order of the URIs; return how many recordings have which reason."""
    reasons: Counter[str] = Counter()
    lines: list[tuple[str, str]] = []
    for table in decisions(out):
        for row in table.to_pylist():
            reasons[row["reason"]] += 1
            if row["keep"]:
                lines.append((row["uri"], manifest_line(row, sure)))
    text = "".join(f"{line}\n" for _, line in sorted(lines))
    storage.write_bytes(storage.join(out, KEPT), text.encode("utf-8", "surrogatepass"))
    return reasons
