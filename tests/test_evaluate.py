"""`bulkscribe evaluate`: rates as by hand, whatever form the references have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import sacrebleu
from click.testing import CliRunner, Result
from outputs import FAILURE, finished, segment, write_part
from speech_examples import clip, passage, write_wav
from tables import assert_whole, read_table

from jobs import main
from pipeline.sources import recording_id
from pipeline.types import Finished, Segment, Word

NEWS, SONG, BROKEN = ("/radio/news.mp3", "/radio/song.mp3", "/radio/broken.m4a")
SAID = {NEWS: "Good evening, here is the news!", SONG: "", BROKEN: "Nobody hears this."}


def spoken(uri: str, *segments: Segment, metadata: dict[str, Any] | None = None, failed: bool = False) -> Finished:
    """Return a recording whose id is that of its URI."""
    one = finished(recording_id(uri), uri, *segments, failure=FAILURE if failed else None)
    recording = replace(one.outcome.recording, metadata=json.dumps(metadata or {}))
    return replace(one, outcome=replace(one.outcome, recording=recording))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    write_part(
        tmp_path / "out",
        "part-0001.parquet",
        [
            spoken(NEWS, segment(0, 2.5, "Good morning."), segment(2.5, 5, "Here is the new news.")),
            spoken(SONG, segment(0, 5, "Thank you!")),
            spoken(BROKEN, failed=True),
        ],
    )
    return tmp_path / "out"


def manifest(folder: Path, rows: list[dict[str, Any]], name: str = "texts.jsonl") -> Path:
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif name.endswith(".csv"):
        pd.DataFrame(rows).to_csv(path, index=False)
    else:
        pd.DataFrame(rows).to_parquet(path)
    return path


def evaluate(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["evaluate", *map(str, args)])


def told(*args: str | Path) -> dict[str, Any]:
    """Return the JSON line of a run that succeeds."""
    result = evaluate(*args)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("name", ["texts.jsonl", "texts.parquet"])
def test_counts_are_those_by_hand(tmp_path: Path, out: Path, name: str) -> None:
    texts = manifest(tmp_path, [{"uri": uri, "text": text} for uri, text in SAID.items()], name)
    found = told(out, "--references", texts)
    # evening/morning; "new" and "thank you" are put in; the three words of the failed one are left out
    assert (found["words"], found["substitutions"], found["insertions"], found["deletions"]) == (9, 1, 3, 3)
    assert found["wer"] == pytest.approx(7 / 9, abs=1e-6)
    assert found["wer_without_failed"] == pytest.approx(4 / 6, abs=1e-6)
    assert (found["failed"], found["silent"], found["silent_with_text"]) == (1, 1, 1)
    assert found["wer_low"] < found["wer"] < found["wer_high"]


def test_text_of_an_empty_cell_is_unknown(tmp_path: Path, out: Path) -> None:
    texts = manifest(tmp_path, [{"uri": uri, "text": text} for uri, text in SAID.items()], "texts.csv")
    found = told(out, "--references", texts)
    assert (found["unknown"], found["recordings"], found["words"], found["silent"]) == (1, 2, 9, 0)


def test_folder_of_texts_is_matched_by_the_names_of_files(tmp_path: Path, out: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "news.txt").write_text("Good morning, here is the new news.", encoding="utf-8")
    found = told(out, "--references", folder)
    assert (found["recordings"], found["by_name"], found["unreferenced"], found["wer"]) == (1, 1, 2, 0.0)


def test_references_that_travelled_in_the_metadata_are_found(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_part(out, "part-0001.parquet", [spoken(NEWS, segment(0, 2, "Good day."), metadata={"text": "Good night."})])
    assert told(out)["wer"] == 0.5


def test_output_without_any_reference_is_an_error_with_a_hint(out: Path) -> None:
    result = evaluate(out)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "has a reference" in result.stderr
    assert "hint: give them with --references" in result.stderr


def test_missing_recordings_are_told_and_counted_only_if_asked_for(tmp_path: Path, out: Path) -> None:
    rows = [{"uri": NEWS, "text": SAID[NEWS]}, {"uri": "/radio/lost.mp3", "text": "Four words are lost."}]
    texts = manifest(tmp_path, rows)
    apart, deleted = told(out, "--references", texts), told(out, "--references", texts, "--missing", "deleted")
    assert (apart["missing"], apart["words"], apart["deletions"]) == (1, 6, 0)
    assert (deleted["missing"], deleted["words"], deleted["deletions"]) == (1, 10, 4)
    assert apart["wer_with_missing"] == deleted["wer"]


def test_groups_add_up_to_the_whole(tmp_path: Path, out: Path) -> None:
    rows = [
        {"uri": uri, "text": text, "accent": accent} for (uri, text), accent in zip(SAID.items(), "xyx", strict=True)
    ]
    found = told(out, "--references", manifest(tmp_path, rows), "--by", "accent,duration,source")
    for by in ("accent", "duration", "source"):
        for name in ("recordings", "words", "insertions", "deletions", "substitutions"):
            assert sum(group[name] for group in found["by"][by].values()) == found[name]
    assert found["by"]["accent"]["x"]["words"] == 9


def test_unknown_column_is_an_error_that_names_the_columns(tmp_path: Path, out: Path) -> None:
    texts = manifest(tmp_path, [{"uri": NEWS, "text": "Good.", "accent": "x"}])
    result = evaluate(out, "--references", texts, "--by", "dialect")
    assert result.exit_code == 2
    assert "no column 'dialect'" in result.stderr
    assert "accent" in result.stderr


@pytest.mark.parametrize("ending", ["csv", "parquet", "json", "jsonl"])
def test_table_has_a_row_a_recording_with_counts_and_texts(tmp_path: Path, out: Path, ending: str) -> None:
    texts = manifest(tmp_path, [{"uri": uri, "text": text} for uri, text in SAID.items()])
    written = tmp_path / f"rows.{ending}"
    told(out, "--references", texts, "--out", written)
    readers: dict[str, Any] = {"csv": pd.read_csv, "parquet": pd.read_parquet, "json": pd.read_json}
    table = pd.read_json(written, lines=True) if ending == "jsonl" else readers[ending](written)
    row = table.set_index("uri").loc[NEWS]
    assert (row["words"], row["insertions"], row["hypothesis"]) == (6, 1, "Good morning. Here is the new news.")


def test_worst_recordings_are_shown_side_by_side(tmp_path: Path, out: Path) -> None:
    texts = manifest(tmp_path, [{"uri": uri, "text": text} for uri, text in SAID.items()])
    lines = [line.split() for line in evaluate(out, "--references", texts, "--worst", "3").stderr.splitlines()]
    assert ["REF", "good", "EVENING", "here", "is", "the", "***", "news"] in lines
    assert ["HYP", "good", "MORNING", "here", "is", "the", "NEW", "news"] in lines


def test_two_runs_are_compared_recording_by_recording(tmp_path: Path, out: Path) -> None:
    better = [
        spoken(NEWS, segment(0, 5, SAID[NEWS])),
        spoken(SONG, segment(0, 5, "Thank you!")),
        spoken(BROKEN, segment(0, 5, "Nobody hears.")),
    ]
    write_part(tmp_path / "better", "part-0001.parquet", better)
    texts = manifest(tmp_path, [{"uri": uri, "text": text} for uri, text in SAID.items()])
    found = told(tmp_path / "better", "--references", texts, "--against", out)["against"]
    assert (found["better"], found["same"], found["worse"], found["not_worse"]) == (2, 1, 0, 1.0)
    assert found["wer_difference"] == pytest.approx((3 - 7) / 9, abs=1e-6)
    assert found["p"] == 0.5  # two recordings that differ: of four choices of signs two lie as far apart


def test_scores_of_translations_are_those_of_sacrebleu(tmp_path: Path) -> None:
    said = {NEWS: "The news of the day is here now.", SONG: "A song is sung in the evening."}
    heard = {NEWS: "The news of today is here now.", SONG: "A song is sung tonight in the evening."}
    items = [spoken(uri, replace(segment(0, 5, text), task="translate")) for uri, text in heard.items()]
    write_part(tmp_path / "out", "part-0001.parquet", items)
    texts = manifest(tmp_path, [{"uri": uri, "text": "?", "translation": text} for uri, text in said.items()])
    found = told(tmp_path / "out", "--references", texts)
    assert found["bleu"] == pytest.approx(sacrebleu.corpus_bleu(list(heard.values()), [list(said.values())]).score)
    assert found["chrf"] == pytest.approx(sacrebleu.corpus_chrf(list(heard.values()), [list(said.values())]).score)


def test_times_are_compared_where_both_sides_know_them(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from pipeline.rows import word_rows

    words = tuple(Word(round(a * 16_000), round(b * 16_000), text, 0.9) for a, b, text in (
        (0.1, 0.5, " Good"), (0.5, 1.0, " evening."))
    )  # fmt: skip
    one = spoken(NEWS, replace(segment(0.1, 1.0, "Good evening."), words=words))
    write_part(tmp_path / "out", "part-0001.parquet", [one])
    (tmp_path / "out/words").mkdir()
    pq.write_table(word_rows([one]), tmp_path / "out/words/part-0001.parquet")
    exact = [{"word": "good", "start": 0.0, "end": 0.5}, {"word": "evening", "start": 0.52, "end": 1.3}]
    found = told(
        tmp_path / "out", "--references", manifest(tmp_path, [{"uri": NEWS, "text": "Good evening.", "words": exact}])
    )
    starts = found["times"]["word_starts"]
    assert (starts["compared"], starts["mean_absolute_s"]) == (2, pytest.approx(0.06))
    assert (starts["within_50_ms"], starts["within_100_ms"]) == (0.5, 1.0)
    assert found["times"]["word_ends"]["mean_absolute_s"] == pytest.approx(0.15)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"text": "No name."}, "no recording named"),
        ({"uri": NEWS}, "there is no `text`"),
        ({"uri": NEWS, "text": 7}, "the text is 7"),
        ({"uri": NEWS, "text": "x", "start": 3, "end": 1}, "ends at 1.0 s"),
    ],
)
def test_what_is_wrong_with_references_is_said_with_the_line(
    tmp_path: Path, out: Path, row: dict[str, Any], words: str
) -> None:
    result = evaluate(out, "--references", manifest(tmp_path, [row]))
    assert result.exit_code == 2
    assert words in result.stderr
    assert "line 1" in result.stderr


def test_curve_under_noise_is_that_of_transcripts_made_under_noise(tmp_path: Path) -> None:
    out = tmp_path / "out"
    audio = write_wav(tmp_path / "speech.wav", clip(passage("es_centralita.opus", "es"), 6).pcm)
    options = ["--runner", "local", "--model", "base", "--no-evidence", "--temperatures", "0", "--language", "es"]
    assert CliRunner().invoke(main, ["transcribe", str(audio), "--out", str(out), *options]).exit_code == 0
    text = " ".join(row["text"] for row in read_table(str(out), "segments"))
    texts = manifest(tmp_path, [{"uri": str(audio), "text": text}])
    found = told(out, "--references", texts, "--add-noise", "20,-10", "--runner", "local")
    assert found["wer"] == 0
    assert 0 <= found["noise"]["20 dB"]["wer"] < found["noise"]["-10 dB"]["wer"]
    (row,) = read_table(str(out / "noise" / "20dB"), "recordings")
    assert row["snr_db"] == pytest.approx(20, abs=2)
    assert_whole(str(out))


def test_output_that_does_not_say_how_it_was_made_cannot_be_made_again(tmp_path: Path, out: Path) -> None:
    texts = manifest(tmp_path, [{"uri": NEWS, "text": "Good."}])
    result = evaluate(out, "--references", texts, "--add-noise", "10")
    assert result.exit_code == 2
    assert "does not say how it was made" in result.stderr


def test_stretches_that_are_recordings_have_the_references_of_their_times(tmp_path: Path) -> None:
    said = {(0, 80_000): ("Good evening.", "Good evening."), (80_000, 160_000): ("The news.", "The new news.")}
    items = []
    for (start, end), (_, heard) in said.items():
        one = finished(recording_id(NEWS, start, end), NEWS, segment(0, 5, heard))
        recording = replace(one.outcome.recording, start=start, end=end)
        items.append(replace(one, outcome=replace(one.outcome, recording=recording)))
    write_part(tmp_path / "out", "part-0001.parquet", items)
    rows = [{"uri": NEWS, "start": a / 16_000, "end": b / 16_000, "text": text} for (a, b), (text, _) in said.items()]
    found = told(tmp_path / "out", "--references", manifest(tmp_path, rows))
    assert (found["recordings"], found["words"], found["insertions"]) == (2, 4, 1)
