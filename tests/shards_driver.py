"""A data set's driver that can be killed: `python shards_driver.py` forks one for each order (JSON) on its stdin.

It prints how each ended. What it writes is made up, so that a driver takes milliseconds; the writer is the real one.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback

from ledger_driver import INTERRUPTED, disturb

from pipeline.card import CLIP_COLUMNS, ORIGIN_COLUMNS, card, totals
from pipeline.readings import Encoded, Reading
from pipeline.shards import Dataset
from pipeline.sound import Sound

CONFIG = {"preset": "asr", "formats": ["nemo", "parquet", "webdataset"], "audio": "flac", "transcripts": "made up"}
SPLIT_OF = ("train", "train", "test", "train", "train")  # by recording
CLIPS = 4  # of a recording; every second is kept
FORMATS = ("parquet", "webdataset")  # whose files hold several clips
TAKEN_OUT = "0001"


def reading(number: int) -> Reading:
    """Return a recording with its clips; the last one has failed."""
    spool, rows, kept = io.BytesIO(), [], []
    for index in range(CLIPS):
        good = index % 2 == 0 and number < len(SPLIT_OF) - 1
        row = dict.fromkeys((*Sound.__dataclass_fields__, "quality_mos", "audio_error", "speaker"))
        row |= dict.fromkeys(("hallucination_probability", "avg_logprob", "language_probability", "no_speech_prob"))
        row |= dict.fromkeys(("compression_ratio", "evidence_per_token", "word_probability", "pace_deviation"))
        row |= {"clip_id": f"{number:04x}-{index:05d}", "recording_id": f"{number:04x}", "index": index}
        row |= {"start": float(index), "end": index + 0.5, "text": "Said.", "language": "en", "task": "transcribe"}
        row |= {"kept": good, "reasons": [] if good else ["noise"], "split": SPLIT_OF[number], "sample_rate": 16_000}
        row |= dict.fromkeys(("second_wer", "second_edge_cer"))
        row |= {"segments": [index], "words": 1, "flags": [], "letters": 4, "seconds_per_letter": 0.1}
        row |= {"text_group": 0, "uri": f"/radio/{number}.mp3"}
        rows.append(row)
        if good:
            kept.append(Encoded(row, "flac", spool, spool.tell(), spool.write(row["clip_id"].encode() * 20)))
    recording = {"recording_id": f"{number:04x}", "uri": f"/radio/{number}.mp3", "version": "1", "metadata": "{}"}
    return Reading(recording, rows, kept, "ok" if number < len(SPLIT_OF) - 1 else "failed", 16_000, None)


def work(out: str) -> None:
    """Do the job to its end, as the command does. A shard is full with two clips."""
    with Dataset.open(out, CONFIG, formats=("parquet", "webdataset", "nemo"), shard_bytes=400) as dataset:
        dataset.begin()
        for number, split in enumerate(SPLIT_OF):
            if f"{number:04x}" not in dataset.done:
                dataset.add(reading(number), split)
        dataset.flush()
        found = totals(dataset.tables("clips", CLIP_COLUMNS), dataset.tables("origins", ORIGIN_COLUMNS))
        dataset.finish(card(found, CONFIG, {"base"}, "Made up", "cc0-1.0"), found.counts())


def thin(out: str) -> None:
    """Take a recording out of a finished data set, to its end."""
    with Dataset.open(out, CONFIG, formats=FORMATS, shard_bytes=4_000) as dataset:
        dataset.remove([TAKEN_OUT])


def drive(out: str, at: int, what: str) -> int:
    """Be a driver that dies before its `at`th change to the file system; return the exit code of one that does not."""
    disturb(out, at, "kill")
    try:
        thin(out) if what == "thin" else work(out)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BaseException:
        traceback.print_exc()
        raise
    return 0


def main() -> None:
    """Take orders."""
    for line in sys.stdin:
        order = json.loads(line)
        child = os.fork()
        if not child:
            code = 1
            try:
                code = drive(order["out"], order["at"], order.get("what", "work"))
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 (this is its answer)


if __name__ == "__main__":
    main()
