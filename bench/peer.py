"""faster-whisper over a manifest, in a process of its own: what `accuracy.py --peer` compares with.

    python bench/peer.py MANIFEST.jsonl MODEL_DIRECTORY HEARD.jsonl

int8, greedy, all else as faster-whisper has it. A line of the manifest has uri, language (null: detect it) and
multilingual. A line of HEARD has uri, language, duration_s and segments. Needs faster-whisper alone, nothing of
bulkscribe, so that any environment can run it.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest")
    parser.add_argument("model")
    parser.add_argument("heard")
    arguments = parser.parse_args()
    try:
        from faster_whisper import WhisperModel
    except ModuleNotFoundError:
        sys.exit("faster-whisper is not installed here: pip install faster-whisper==1.2.1, or name --peer-python")
    model = WhisperModel(arguments.model, device="cpu", compute_type="int8")
    with open(arguments.manifest, encoding="utf-8") as manifest, open(arguments.heard, "w", encoding="utf-8") as heard:
        for entry in map(json.loads, manifest):
            heard.write(json.dumps(hear(model, entry)) + "\n")


def hear(model: Any, entry: dict[str, Any]) -> dict[str, Any]:
    """Transcribe one recording."""
    segments, info = model.transcribe(
        entry["uri"], beam_size=1, language=entry["language"], multilingual=entry["multilingual"]
    )
    names = ("start", "end", "text", "avg_logprob", "compression_ratio", "no_speech_prob")
    return {
        "uri": entry["uri"],
        "language": info.language,
        "duration_s": info.duration,
        "segments": [{name: getattr(segment, name) for name in names} for segment in segments],
    }


if __name__ == "__main__":
    main()
