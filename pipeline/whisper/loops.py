"""When a line of text is a loop that cannot pass the gate on the compression ratio any more. Knows text only.

Without this a loop runs on until the decoder's positions are full, three times as long as most windows, only to be
thrown away. The reference implementation lets it.
"""

from __future__ import annotations

import zlib

ORDINARY = 1.5  # compression ratio of a few sentences that do not repeat themselves


def hopeless(text: str, tokens: int, room: int, threshold: float) -> bool:
    """Say whether `text`, decoded from `tokens` tokens, would still fail if only ordinary text came from now on.

    `room` more tokens may come, of as many bytes each as those until now; `threshold` is the gate's compression ratio.
    """
    data = text.encode()
    coming = room * len(data) / max(1, tokens)
    return len(data) + coming > threshold * (len(zlib.compress(data)) + coming / ORDINARY)
