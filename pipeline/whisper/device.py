"""Where the model runs, in which number format, and how numbers get there and back. Knows torch's devices only.

A GPU works through a queue. Who asks it for a number waits until the queue is empty, and the GPU then waits until
there is work again: therefore nothing here waits, and what comes back is read a while later.
"""

from __future__ import annotations

from enum import Enum, auto
from functools import lru_cache

import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.whisper import precision
from pipeline.whisper.options import WhisperOptions


def resolve(options: WhisperOptions) -> tuple[torch.device, str]:
    """Return the device and the number format that `auto` stands for here; UserError when the device is not there."""
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name} names no device", "for example cpu, cuda, cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"there is no CUDA device for --device {name}", "use --device cpu")
    if options.dtype == "int8" and device.type != "cpu":
        raise UserError(f"--dtype int8 is for CPUs, not for {name}", "use --dtype float16")
    return device, precision.automatic(device.type) if options.dtype == "auto" else options.dtype


def settle_thread(threads: int, device: torch.device) -> None:
    """Prepare the calling thread: its GPU; on a CPU its threads, and no denormal numbers (a softmax has many)."""
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)  # graphs are recorded on the thread's current device, whatever the tensors are on
    if device.type == "cpu":
        torch.set_num_threads(threads)  # Ray gives an actor without CPU tokens a single one
        torch.set_flush_denormal(True)


class Bfloat16(Enum):
    """How a CPU multiplies bfloat16."""

    TILES = auto()  # AMX, for which torch's own kernels are made
    VECTORS = auto()  # AVX-512 BF16
    CONVERTED = auto()  # as float32


@lru_cache(maxsize=1)
def bfloat16() -> Bfloat16:
    """Return how this CPU multiplies bfloat16."""
    if torch.cpu._is_amx_tile_supported():
        return Bfloat16.TILES
    return Bfloat16.VECTORS if torch.cpu._is_avx512_bf16_supported() else Bfloat16.CONVERTED


def free_memory(device: torch.device) -> int:
    """Return the bytes that a GPU has free, with what torch holds of it without using it."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def onto(device: torch.device, data: Tensor) -> Tensor:
    """Return the host's `data` on `device`, without waiting for what a GPU is at."""
    return data.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else data.to(device)


class Arriving:
    """A tensor on its way to the host; on a CPU, the tensor itself, whatever becomes of it."""

    def __init__(self, data: Tensor) -> None:
        self._data = data.to("cpu", non_blocking=data.is_cuda)
        self._sent = torch.cuda.current_stream(data.device).record_event() if data.is_cuda else None

    @property
    def there(self) -> bool:
        return self._sent is None or self._sent.query()

    def read(self) -> Tensor:
        """Wait for the tensor and return it."""
        if self._sent is not None:
            self._sent.synchronize()
        return self._data


def describe_device() -> str:
    """Return this machine's GPUs or CPU threads, and torch's version, in a line."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, torch {torch.__version__}"
    return f"no GPU; {torch.get_num_threads()} CPU threads, torch {torch.__version__}"
