"""Which number format `--dtype auto` stands for. Free of torch: the driver resolves what only the actors load."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")  # Linux; elsewhere nothing is known, and float32 is safe
_INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8"}  # int8 products in hardware, as the kernel names them


def automatic(device: str) -> str:
    """Return float16 for a GPU; for a CPU int8 where it multiplies that in hardware, otherwise float32."""
    if device != "cpu":
        return "float16"
    return "int8" if _multiplies_int8() else "float32"


@lru_cache(maxsize=1)
def _multiplies_int8() -> bool:
    lines = _CPUINFO.read_text().splitlines() if _CPUINFO.is_file() else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    return bool(_INT8_FLAGS & set(flags.split()))
