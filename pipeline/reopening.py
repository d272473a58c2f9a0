"""A recording that was transcribed, opened once more: a file, a member of a tar or a row of a table, as it was then.

Duty: find the recording of a row of `OUT/recordings` again. Its URI says which piece of a file it is, a look at the
file where that lies. Knows no clips and no tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

from pipeline import pieces, storage
from pipeline.decode import DecodeOptions, Decoder
from pipeline.errors import OpenError
from pipeline.selection import Selection
from pipeline.sources import resolve


def open_audio(recording: Mapping[str, Any], rate: int, stretch: tuple[int, int]) -> Decoder:
    """Open a stretch of the source, in samples at `rate`; OpenError where it is not what was transcribed."""
    uri, version = recording["uri"], recording["version"]
    base, piece = storage.split_piece(uri)
    now = storage.stat(base).version
    if version and now and now != version:
        raise OpenError("changed", f"it has changed since it was transcribed (it was {version}, is {now})")
    inside = _insides(base, now).get(uri, "") if piece else ""
    if piece and not inside:
        raise OpenError("not_found", "the file that it lay in does not hold it any more")
    path, window = pieces.local_window(base, inside) or (None, None)
    return Decoder(
        partial(pieces.open_piece, base, version, inside),
        path,
        DecodeOptions(),
        Selection.of(recording.get("selection")),
        suffix=storage.suffix(uri),
        stretch=stretch,
        window=window,
        rate=rate,
    )


@lru_cache(maxsize=8)
def _insides(uri: str, version: str) -> dict[str, str]:
    """Return where in a tar or table each of its recordings lies."""
    return {one.uri: one.inside for one in resolve([uri]).recordings}
