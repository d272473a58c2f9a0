"""Show what a job has written: one block a recording, its text, its doubts. `python examples/show.py out/demo`"""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd


def show(out: str) -> str:
    """Return the recordings and their segments as text."""
    recordings = pd.read_parquet(f"{out}/recordings").sort_values("uri")
    segments = pd.read_parquet(f"{out}/segments").sort_values(["recording_id", "index"])
    lines = []
    for recording in recordings.itertuples():
        language = recording.language if isinstance(recording.language, str) else "no speech"
        heard = f", {recording.duration_s:.0f} s, {language}" if recording.duration_s else ""
        lines.append(f"\n{Path(recording.uri).name}: {recording.status}{heard}")
        if isinstance(recording.error_message, str):
            lines.append(f"    {recording.error_message}")
        for segment in segments[segments.recording_id == recording.recording_id].itertuples():
            doubt = f"  [{', '.join(segment.flags)}]" if len(segment.flags) else ""
            lines.append(f"  {segment.start:7.2f} {segment.end:7.2f}  {segment.text}{doubt}")
    lines.append(f"\nThe tables are in {out}/recordings and {out}/segments, as Parquet:")
    lines.append(f"""    .venv/bin/python -c "import pandas; print(pandas.read_parquet('{out}/segments'))" """.rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(show(sys.argv[1] if len(sys.argv) > 1 else "out/demo") + "\n")
