"""Where the model runs, and in which number format. Knows torch's devices only."""

from __future__ import annotations

import torch

from pipeline.errors import UserError
from pipeline.whisper.options import WhisperOptions


def resolve(options: WhisperOptions) -> tuple[torch.device, torch.dtype]:
    """Return the device and number format that `auto` stands for here; UserError when the device is not there."""
    name = options.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name} names no device", "for example cpu, cuda, cuda:1") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"there is no CUDA device for --device {name}", "use --device cpu")
    automatic = torch.float32 if device.type == "cpu" else torch.float16
    return device, automatic if options.dtype == "auto" else getattr(torch, options.dtype)


def describe_device() -> str:
    """Return this machine's GPUs or CPU threads, and torch's version, in a line."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, torch {torch.__version__}"
    return f"no GPU; {torch.get_num_threads()} CPU threads, torch {torch.__version__}"
