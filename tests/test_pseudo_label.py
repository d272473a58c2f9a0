"""`bulkscribe pseudo-label`: real recordings to data sets, opened by the libraries that they are meant for."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner, Result
from labelled import EXAMPLES, NAMES, transcribed, write_examples, write_transcripts
from outputs import finished, segment

from jobs import main
from pipeline.candidates import PRESETS, Corpus, SplitOptions
from pipeline.gates import ASR, Paces, by_sound, by_text
from pipeline.sources import resolve
from pipeline.transcripts import transcripts

FORMATS = "parquet,webdataset,ljspeech,nemo,lhotse"


def pseudo_label(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["pseudo-label", *map(str, args)])


BY_TEXT = (
    "language_probability",
    "hallucination_probability",
    "avg_logprob",
    "pace_deviation",
    "second_wer",
    "second_edge_cer",
)
BY_SOUND = (
    "audio_error",
    "snr_db",
    "clipped",
    "bandwidth_hz",
    "loudness_lufs",
    "speech_share",
    "edge_db",
    "quality_mos",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Three recordings as a data set in all formats; its folder and the counts. The transcripts lie beside it."""
    folder = tmp_path_factory.mktemp("made")
    _, out = write_examples(folder)
    result = pseudo_label(out, "--out", folder / "data", "--format", FORMATS, "--license", "cc-by-sa-4.0")
    assert result.exit_code == 0, result.output
    return folder / "data", json.loads(result.stdout)


def clips(dataset: Path, *, kept: bool | None = True) -> pd.DataFrame:
    table = pd.read_parquet(dataset / "clips")
    return table if kept is None else table[table["kept"] == kept].reset_index(drop=True)


def words(text: str) -> list[str]:
    return re.sub(r"[^\w\s]", "", text.lower()).split()


def test_counts_are_those_of_the_tables(made: tuple[Path, dict[str, Any]]) -> None:
    dataset, counts = made
    table = clips(dataset, kept=None)
    assert counts["candidates"] == len(table)
    assert counts["clips"] == table["kept"].sum() >= 6
    assert counts["recordings"] == 3
    assert counts["origins"] == {"ok": 3}


def test_nothing_said_is_lost_and_lengths_are_the_presets(made: tuple[Path, dict[str, Any]]) -> None:
    table = clips(made[0], kept=None)
    for one in transcripts(str(made[0].parent / "transcripts")):
        mine = table[table["recording_id"] == one.recording["recording_id"]].sort_values("index")
        assert words(" ".join(mine["text"])) == words(" ".join(row["text"] for row in one.segments))
    lengths = table["end"] - table["start"]
    assert (lengths <= PRESETS["asr"].clips.max_s).all()


def test_edges_are_silent(made: tuple[Path, dict[str, Any]]) -> None:
    assert (clips(made[0])["edge_db"] < -15).all()


def test_audio_is_the_sources_at_its_own_rate(made: tuple[Path, dict[str, Any]]) -> None:
    """Bit for bit where the source is lossless."""
    dataset, sources = made[0], made[0].parent / "sources"
    assert set(clips(dataset)["sample_rate"]) == {16_000, 48_000}
    source, rate = soundfile.read(sources / "it_centralino.flac", dtype="int16")
    rows = clips(dataset)[lambda table: table["recording_id"].str.startswith("it_")]
    assert len(rows)
    for row in rows.itertuples():
        clip, own = soundfile.read(dataset / "audio" / row.split / f"{row.clip_id}.flac", dtype="int16")
        assert own == rate
        assert np.array_equal(clip, source[round(row.start * rate) : round(row.end * rate)])


def test_datasets_opens_the_folder(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        loaded = datasets.load_dataset(str(made[0]), cache_dir=str(tmp_path))
    assert isinstance(loaded["train"].features["audio"], datasets.Audio)
    rows = loaded["train"].cast_column("audio", datasets.Audio(decode=False))
    table = clips(made[0]).set_index("clip_id")
    assert sorted(rows["clip_id"]) == sorted(table.index)
    for row in rows:
        audio, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]))
        assert len(audio) / rate == pytest.approx(row["duration"], abs=1e-3)
        assert row["text"] == table.loc[row["clip_id"], "text"]


def test_webdataset_opens_the_tars(made: tuple[Path, dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        paths = sorted(map(str, (made[0] / "webdataset").glob("*.tar")))
        samples = list(webdataset.WebDataset(paths, shardshuffle=False))
    assert sorted(sample["__key__"] for sample in samples) == sorted(clips(made[0])["clip_id"])
    for sample in samples:
        told = json.loads(sample["json"])
        audio, rate = soundfile.read(io.BytesIO(sample["flac"]))
        assert (told["text"].encode(), told["sample_rate"]) == (sample["txt"], rate)
        assert len(audio) / rate == pytest.approx(told["duration"], abs=1e-3)


def test_lhotse_opens_the_cuts(made: tuple[Path, dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lhotse

        cuts = lhotse.load_manifest(made[0] / "cuts-train.jsonl.gz").with_recording_path_prefix(made[0])
        lhotse.validate(cuts)
        texts = {cut.id: cut.supervisions[0].text for cut in cuts}
        lengths = {cut.id: (cut.load_audio().shape[1], cut.num_samples) for cut in cuts}
    table = clips(made[0]).set_index("clip_id")
    assert texts == table["text"].to_dict()
    assert all(heard == stated for heard, stated in lengths.values())


def test_lhotse_reads_the_ljspeech_layout(made: tuple[Path, dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from lhotse.recipes import prepare_ljspeech

        found = prepare_ljspeech(made[0] / "ljspeech" / "train")
    table = clips(made[0]).set_index("clip_id")
    assert {one.recording_id: one.text for one in found["supervisions"]} == table["text"].to_dict()
    for recording in found["recordings"]:
        row = table.loc[recording.id]
        assert recording.duration == pytest.approx(row["end"] - row["start"], abs=1e-3)


def test_nemo_manifest_leads_to_the_audio(made: tuple[Path, dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        entries = list(datasets.Dataset.from_json(str(made[0] / "nemo-train.json"), cache_dir=str(made[0] / "cache")))
    assert len(entries) == len(clips(made[0]))
    for entry in entries:
        found = soundfile.info(made[0] / entry["audio_filepath"])
        assert found.duration == pytest.approx(entry["duration"], abs=1e-3)
        assert entry["text"]


def test_the_card_tells_licence_numbers_and_origin(made: tuple[Path, dict[str, Any]]) -> None:
    dataset, counts = made
    card = (dataset / "README.md").read_text(encoding="utf-8")
    import yaml

    header = yaml.safe_load(card.split("---")[1])
    assert (header["license"], header["language"]) == ("cc-by-sa-4.0", ["en", "es", "it"])
    assert header["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert f"{counts['clips']} clips" in card
    assert "machine-made" in card


def test_a_finished_data_set_is_left_as_it_is(made: tuple[Path, dict[str, Any]]) -> None:
    dataset, counts = made
    before = {path: path.stat().st_mtime_ns for path in dataset.rglob("*") if path.is_file()}
    result = pseudo_label(dataset.parent / "transcripts", "--out", dataset, "--format", FORMATS)
    assert result.exit_code == 0
    assert "nothing to do" in result.stderr
    assert json.loads(result.stdout) == counts
    assert {path: path.stat().st_mtime_ns for path in dataset.rglob("*") if path.is_file()} == before


def test_other_thresholds_on_the_same_data_set_are_refused(made: tuple[Path, dict[str, Any]]) -> None:
    result = pseudo_label(made[0].parent / "transcripts", "--out", made[0], "--format", FORMATS, "--min-snr-db", "12")
    assert result.exit_code == 2
    assert "min_snr_db was 0.0, is 12.0" in result.stderr


def test_sources_that_are_gone_or_changed_are_rows(tmp_path: Path) -> None:
    sources, out = write_examples(tmp_path)
    (sources / NAMES[0]).unlink()
    with (sources / NAMES[1]).open("ab") as file:
        file.write(b"more")
    result = pseudo_label(out, "--out", tmp_path / "data", "--max-copies", "5")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["failures"] == {"changed": 1, "not_found": 1}
    lost = clips(tmp_path / "data", kept=False)
    assert set(lost["recording_id"].str[:2]) == {"en", "es"}
    assert all(list(reasons) == ["audio"] for reasons in lost["reasons"])
    assert lost["audio_error"].str.contains("not_found|changed").all()
    shutil.copy(EXAMPLES / "audio" / NAMES[0], sources / NAMES[0])
    again = pseudo_label(out, "--out", tmp_path / "data", "--max-copies", "5", "--retry-failed")
    assert again.exit_code == 0
    assert len(pd.read_parquet(tmp_path / "data" / "origins")) == 3


def test_reasons_come_with_numbers_and_nothing_is_left_out_of_the_table(tmp_path: Path) -> None:
    sources, out = tmp_path / "sources", tmp_path / "transcripts"
    sources.mkdir()
    shutil.copy(EXAMPLES / "audio" / "it_centralino.flac", sources)
    write_transcripts(out, [transcribed(sources / "it_centralino.flac", words=False)])
    result = pseudo_label(out, "--out", tmp_path / "data", "--preset", "tts", "--audio", "opus", "--rate", "8000")
    assert result.exit_code == 0
    assert "no words with times" in result.stderr
    dropped = clips(tmp_path / "data", kept=None)
    assert not dropped["kept"].any()
    assert all("bandwidth" in list(reasons) for reasons in dropped["reasons"])
    assert (dropped["bandwidth_hz"] <= 4000).all()
    assert json.loads(result.stdout)["clips"] == 0


def test_opus_at_another_rate_can_be_read(tmp_path: Path) -> None:
    sources, out = tmp_path / "sources", tmp_path / "transcripts"
    sources.mkdir()
    shutil.copy(EXAMPLES / "audio" / "it_centralino.flac", sources)
    write_transcripts(out, [transcribed(sources / "it_centralino.flac")])
    result = pseudo_label(
        *(out, "--out", tmp_path / "data", "--preset", "lid", "--audio", "opus", "--rate", "16000", "--format", "nemo")
    )
    assert result.exit_code == 0
    paths = list((tmp_path / "data" / "audio").rglob("*.opus"))
    assert len(paths) == json.loads(result.stdout)["clips"] > 0
    info = soundfile.info(paths[0])
    assert (info.format, info.subtype) == ("OGG", "OPUS")


def test_members_of_tars_and_stretches_give_the_same_audio(tmp_path: Path) -> None:
    source, out = tmp_path / "it_centralino.flac", tmp_path / "transcripts"
    shutil.copy(EXAMPLES / "audio" / source.name, source)
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(EXAMPLES / "audio" / "music.mp3", "first.mp3")
        tar.add(source, "a/b.flac")
    item = transcribed(source)
    (piece,) = (one for one in resolve([str(tmp_path / "all.tar")]).recordings if one.uri.endswith(".flac"))
    begun = 5 * 16_000  # of the stretch: times in memory count from there
    apart = [(0, replace(one, words=(), language=("it", "es")[at % 2])) for at, (_, one) in enumerate(item.segments)]
    late = [(0, replace(one, start=one.start - begun, end=one.end - begun)) for _, one in apart if one.start >= begun]
    stretch = replace(item.outcome.recording, id="stretch", start=begun, end=None)
    plain = replace(item, segments=tuple(apart))  # each sentence is a clip of its own
    member = replace(plain, outcome=replace(plain.outcome, recording=replace(piece, id="member")))
    shorter = replace(plain.outcome, recording=stretch, duration=plain.outcome.duration - begun)
    write_transcripts(out, [plain, member, replace(plain, outcome=shorter, segments=tuple(late))])
    options = ["--format", "nemo", "--min-s", "1", "--max-copies", "9"]
    assert pseudo_label(out, "--out", tmp_path / "data", *options).exit_code == 0
    heard: dict[str, dict[str, bytes]] = {"it_centralinoaaa": {}, "member": {}, "stretch": {}}
    for row in clips(tmp_path / "data").itertuples():
        heard[row.recording_id][row.text] = (tmp_path / "data" / row.shards[0]).read_bytes()
    assert len(heard["member"]) > 2
    assert heard["member"] == heard["it_centralinoaaa"]
    later = [one.text for _, one in late[1:] if one.text in heard["member"]]  # the first has another room before it
    assert len(later) > 1
    assert all(heard["stretch"][text] == heard["member"][text] for text in later)


def test_hostile_names_and_texts_stay_inside_the_data_set(tmp_path: Path) -> None:
    sources, out = tmp_path / "sources", tmp_path / "transcripts"
    sources.mkdir()
    shutil.copy(EXAMPLES / "audio" / "it_centralino.flac", sources)
    item = transcribed(sources / "it_centralino.flac")
    awkward = tuple((at, replace(one, text=one.text + " |a\n../x", words=())) for at, one in item.segments)
    write_transcripts(out, [replace(item, segments=awkward)])
    assert pseudo_label(out, "--out", tmp_path / "data", "--format", "ljspeech,nemo").exit_code == 0
    lines = (tmp_path / "data" / "ljspeech" / "train" / "metadata.csv").read_text().splitlines()
    assert all(line.count("|") == 2 for line in lines)
    assert {path.name for path in tmp_path.iterdir()} == {"sources", "transcripts", "data"}


def test_what_is_asked_wrongly_is_said_in_a_line(tmp_path: Path) -> None:
    wrong = (
        *(["--min-s", "9", "--max-s", "5"], ["--rate", "5"], ["--test", "2"], ["--validation", "0.6", "--test", "0.6"]),
        *(["--shard-mb", "0"], ["--languages", "en,english"]),
    )
    for args in wrong:
        result = pseudo_label(tmp_path, "--out", tmp_path / "data", *args)
        assert result.exit_code == 2
        assert result.stderr.startswith("error: ")
    assert pseudo_label(tmp_path / "nothing", "--out", tmp_path / "data").exit_code == 2


def test_split_by_a_column_that_no_recording_has_is_refused(tmp_path: Path) -> None:
    write_transcripts(tmp_path / "out", [finished("01", "/radio/1.mp3", segment(0, 5, "Good evening."))])
    result = pseudo_label(tmp_path / "out", "--out", tmp_path / "data", "--split-by", "speakr")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --split-by speakr: no recording has such a column")


def test_near_copies_never_lie_in_two_splits(tmp_path: Path) -> None:
    texts = [f"This is sentence number {'abcdefghij'[at % 10] * 8} of the whole collection." for at in range(10)]
    items = [
        finished(f"{at:04x}", f"/radio/{at}.mp3", segment(0, 5, texts[at % 10] + ("!" if at % 2 else "")))
        for at in range(100)
    ]
    write_transcripts(tmp_path, items)
    plan = replace(PRESETS["asr"], splits=SplitOptions(validation=0.2, test=0.2))
    corpus = Corpus(str(tmp_path), plan)
    corpus.survey()
    rows = [row for one in transcripts(str(tmp_path)) for row in corpus.rows(one)]
    assert {row["split"] for row in rows} == {"train", "validation", "test"}
    kept = [row for row in rows if not row["reasons"]]
    assert len({(row["text_group"], row["split"]) for row in kept}) == len({row["text_group"] for row in kept}) == 10
    assert any(row["reasons"] == ["leak"] for row in rows)


def test_only_so_many_copies_of_a_text_are_kept(tmp_path: Path) -> None:
    items = [finished(f"{at:04x}", f"/{at}.mp3", segment(0, 5, "The same jingle again.")) for at in range(30)]
    write_transcripts(tmp_path, items)
    corpus = Corpus(str(tmp_path), replace(PRESETS["asr"], splits=SplitOptions(0, 0)))
    corpus.survey()
    rows = [row for one in transcripts(str(tmp_path)) for row in corpus.rows(one)]
    assert [bool(row["reasons"]) for row in rows] == [False] * 10 + [True] * 20
    assert rows[-1]["reasons"] == ["copies"]


def test_recordings_of_a_group_stay_in_one_split(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path), replace(PRESETS["asr"], splits=SplitOptions(0.3, 0.3, split_by="show")))
    rows = [{"recording_id": f"{at:04x}", "metadata": json.dumps({"show": at % 7})} for at in range(70)]
    assert len({(row["metadata"], corpus.split(row)) for row in rows}) == 7


def test_pace_is_known_by_language_and_told_in_deviations() -> None:
    paces = Paces()
    rng = np.random.default_rng(1)
    for value in rng.lognormal(np.log(0.07), 0.2, 500):
        paces.note("en", float(value))
    paces.note("de", 0.07)
    paces.settle()
    assert paces.deviation("de", 0.07) is None
    slow, usual = paces.deviation("en", 0.07 * np.exp(0.6)), paces.deviation("en", 0.07)
    assert slow == pytest.approx(3.0, abs=0.5)
    assert usual == pytest.approx(0.0, abs=0.2)


def test_what_is_unknown_fails_no_gate() -> None:
    unknown = dict.fromkeys(BY_TEXT + BY_SOUND)
    row = unknown | {"flags": [], "letters": 5, "task": "transcribe", "start": 0.0, "end": 5.0, "language": "en"}
    assert by_text(row, ASR, 3, 30) + by_sound(row, ASR) == []
    assert by_text(row | {"hallucination_probability": 0.9, "task": "translate"}, ASR, 3, 30) == [
        "translated",
        "hallucination",
    ]


@pytest.mark.slow
def test_a_job_that_is_killed_goes_on_and_ends_with_the_same_clips(tmp_path: Path) -> None:
    _, out = write_examples(tmp_path)
    args = ["pseudo-label", str(out), "--format", "parquet,webdataset", "--shard-mb", "0.001", "--workers", "1"]
    command = [sys.executable, "-m", "jobs", *args, "--out"]
    subprocess.run([*command, str(tmp_path / "whole")], check=True, capture_output=True)
    with subprocess.Popen([*command, str(tmp_path / "killed")], stdout=subprocess.DEVNULL) as job:
        while not list((tmp_path / "killed").glob("origins/*")):
            time.sleep(0.02)
        os.kill(job.pid, signal.SIGKILL)
    assert not (tmp_path / "killed" / "README.md").exists()
    subprocess.run([*command, str(tmp_path / "killed")], check=True, capture_output=True)
    whole, killed = (clips(tmp_path / name, kept=None).drop(columns="shards") for name in ("whole", "killed"))
    pd.testing.assert_frame_equal(
        whole.sort_values("clip_id", ignore_index=True), killed.sort_values("clip_id", ignore_index=True)
    )
    data = pd.concat(pd.read_parquet(path) for path in (tmp_path / "killed" / "data").glob("*"))
    assert sorted(data["clip_id"]) == sorted(whole[whole["kept"]]["clip_id"])
