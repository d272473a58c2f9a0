"""How many windows are decoded at once, and how many are encoded ahead of them: what the memory has room for.

Allocates nothing, and knows no windows.
"""

from __future__ import annotations

from pipeline.whisper.device import free_memory
from pipeline.whisper.model import Whisper
from pipeline.whisper.options import WhisperOptions

GPU_SLOTS = 128  # windows that are decoded at once, as far as they fit
CPU_SLOTS = (16, 48)  # least and most of them, whatever they take; between, as far as they fit into CPU_ROOM bytes
CPU_ROOM = 1.5 * 2**30
AHEAD = 2  # batches of windows that are encoded while all slots are taken; where threads encode, the least
SHARE = 0.85  # of a GPU's free memory that is planned for


def lane_ratio(model: Whisper) -> int:
    """Return how many slots the first attempts have for one of the further ones, whose rows are several a slot."""
    return 8 if model.device.type == "cuda" else 4


def slots(model: Whisper, options: WhisperOptions) -> int:
    """Return how many slots there is room for; on a GPU, beside all that is on its way to and from them."""
    audio, cache = model.bytes_of_audio, model.bytes_of_cache
    one, several = audio + cache, audio + max(options.beam, options.best_of) * cache
    further = several / lane_ratio(model)
    sampling = options.temperatures[0] > 0
    slot = further + (2 * further if options.beam > 1 else several if sampling else one)
    if model.device.type != "cuda":
        least, most = CPU_SLOTS
        return max(least, min(most, int(CPU_ROOM / (slot + audio))))  # and a window ahead
    # Encoded ahead, being encoded, and kept and put together to be weighed.
    beside = (AHEAD + 3) * audio
    return max(1, min(GPU_SLOTS, fitting(SHARE * free_memory(model.device), slot, beside, model.batch)))


def batch(model: Whisper, capacity: int) -> int:
    """Return how many windows are encoded at once for so many slots."""
    return min(model.batch, capacity)


def ahead(model: Whisper, capacity: int, *, threaded: bool) -> int:
    """Return how many windows are encoded, or wait for it, while all of so many slots are busy.

    Where threads encode, as many as there are slots, if half of CPU_ROOM holds them: else about half of the slots would
    stand empty meanwhile.
    """
    if not threaded:
        return AHEAD * batch(model, capacity)
    return min(capacity, max(AHEAD, int(CPU_ROOM / 2 / model.bytes_of_audio)))


def fitting(room: float, slot: float, beside: float, batch: int) -> int:
    """Return how many slots have room, where each takes `slot` bytes, and each of the first `batch` `beside` them."""
    few = room / (slot + beside)
    return int(few if few < batch else (room - batch * beside) / slot)
