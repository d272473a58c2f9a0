"""How well a text packs, as loops do, and when a line is a loop that cannot pass the gate on that. Knows text only.

Without `hopeless` a loop runs on until the decoder's positions are full, three times as long as most windows, only to
be thrown away. The reference implementation lets it.
"""

from __future__ import annotations

import zlib

ORDINARY = 1.5  # compression ratio of a few sentences that do not repeat themselves


def compression_ratio(text: str) -> float:
    """Return bytes of UTF-8 over their zlib size (source: `whisper.utils.compression_ratio`); loops pack well."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def hopeless(text: str, tokens: int, room: int, threshold: float) -> bool:
    """Say whether `text`, decoded from `tokens` tokens, would still fail if only ordinary text came from now on.

    `room` more tokens may come, of as many bytes each as those until now; `threshold` is the gate's compression ratio.
    """
    data = text.encode()
    coming = room * len(data) / max(1, tokens)
    return len(data) + coming > threshold * (len(zlib.compress(data)) + coming / ORDINARY)
