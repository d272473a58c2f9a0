"""`bulkscribe clean`: pairs of real audio and weak texts, judged, ranked by source, and cut into examples."""

from __future__ import annotations

import io
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from click.testing import CliRunner, Result
from weak_pairs import REFERENCES, name_of, write_pairs

from jobs import main
from pipeline.pairs import read_pairs
from pipeline.verdicts import JudgeOptions, Verdicts

FORMATS = ("--format", "parquet,webdataset")
LICENCE = ("--license", "cc-by-sa-4.0")
EXPECTED = {
    "plain": [],
    "timed": [],
    "copy": ["copy"],
    "shouted": ["upper_case"],
    "translated": [],
    "foreign": ["language"],
    "unlike": ["errors"],
    "music": ["silent"],
    "broken": ["untranscribed"],
    "unheard": ["untranscribed"],
    "untexted": ["no_text", "untranscribed"],
}


def clean(*args: str | Path) -> Result:
    return CliRunner().invoke(main, ["clean", *map(str, args)])


def pairs(out: Path) -> pd.DataFrame:
    """Return the pairs by the names that they have here."""
    table = pd.read_parquet(out / "pairs")
    return table.assign(name=[name_of(row) for _, row in table.iterrows()]).set_index("name")


def examples(out: Path, *, kept: bool | None = True) -> pd.DataFrame:
    table = pd.read_parquet(out / "examples").sort_values(["recording_id", "index"])
    return table if kept is None else table[table["kept"] == kept].reset_index(drop=True)


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The pairs, cleaned; the folder of all and the counts. Tests that change anything work on a copy."""
    folder = tmp_path_factory.mktemp("made")
    manifest, heard = write_pairs(folder)
    result = clean(manifest, "--transcripts", heard, "--out", folder / "cleaned", *FORMATS, *LICENCE)
    assert result.exit_code == 0, result.output
    return folder, json.loads(result.stdout)


@pytest.fixture
def copy(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of the result, and only of that: the audio stays where it is."""
    shutil.copytree(made[0] / "cleaned", tmp_path / "cleaned")
    return tmp_path / "cleaned"


def again(folder: Path, out: Path, *args: str | Path) -> tuple[dict[str, Any], str]:
    given = folder / "pairs.jsonl", "--transcripts", folder / "transcripts", *FORMATS, *LICENCE
    result = clean(*given, "--out", out, *args)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


# --- by texts alone -------------------------------------------------------------------------------------------------


def test_texts_are_judged_without_audio(tmp_path: Path) -> None:
    text = REFERENCES["en_switchboard.mp3"]
    lines = [
        {"uri": "a.mp3", "text": text, "name": "good"},
        {"uri": "b.mp3", "text": text.replace("Waldo", "Wally"), "name": "near"},
        {"uri": "c.mp3", "text": text.lower(), "name": "small"},
        {"uri": "d.mp3", "text": "Yes, please.", "name": "short"},
        {"uri": "e.mp3", "text": "Yes, please.", "name": "short again"},
        {"uri": "f.mp3", "text": "...", "name": "no letters"},
        {"uri": "g.mp3", "text": REFERENCES["fr_standard.m4a"], "synthetic": True, "name": "robot"},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    result = clean(tmp_path / "p.jsonl", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    table = pairs(tmp_path / "out")
    assert {name: list(row["reasons"]) for name, row in table.iterrows()} == {
        "good": [],
        "near": ["copy"],
        "small": ["lower_case"],
        "short": [],
        "short again": [],
        "no letters": ["empty"],
        "robot": [],
    }
    assert table.loc["good", "text_group"] == table.loc["near", "text_group"]
    assert json.loads(result.stdout)["synthetic"] == 1
    kept = [json.loads(line)["uri"] for line in (tmp_path / "out" / "kept.jsonl").read_text().splitlines()]
    assert kept == [str(tmp_path / name) for name in ("a.mp3", "d.mp3", "e.mp3", "g.mp3")]
    assert "no audio was heard" in result.stderr


def test_hostile_texts_are_rows_too(tmp_path: Path) -> None:
    lines = ['{"uri": "a.mp3", "text": "Half a pair \\ud800 and a \\u0000.", "source": "\\udfff", "x": "\\ud800"}']
    lines += ['{"uri": "b.mp3", "text": 7}', '{"uri": "c.mp3", "cues": "no list"}', '{"uri": "d.mp3", "text": ""}']
    (tmp_path / "p.jsonl").write_text("\n".join(lines), encoding="utf-8")
    result = clean(tmp_path / "p.jsonl", "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    table = pd.read_parquet(tmp_path / "out" / "pairs")
    assert [list(reasons) for reasons in table["reasons"]] == [[], ["no_text"], ["no_text"], ["empty"]]
    assert "`cues` is no list" in table["text_error"][2]


def test_translations_are_no_transcripts_to_compare_with(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    shutil.copytree(made[0] / "transcripts", tmp_path / "translated")
    (part,) = (tmp_path / "translated" / "segments").iterdir()
    pd.read_parquet(part).assign(task="translate").to_parquet(part)
    result = clean(made[0] / "pairs.jsonl", "--transcripts", tmp_path / "translated", "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "are translations" in result.stderr


def test_reasons_can_be_allowed_and_synthetic_speech_dropped(tmp_path: Path) -> None:
    lines = [{"uri": "a.mp3", "text": REFERENCES["fr_standard.m4a"].upper(), "synthetic": "yes", "name": "a"}]
    (tmp_path / "p.jsonl").write_text(json.dumps(lines[0]) + "\n", encoding="utf-8")
    result = clean(tmp_path / "p.jsonl", "--out", tmp_path / "out", "--allow", "upper_case", "--drop-synthetic")
    assert json.loads(result.stdout)["reasons"] == {"synthetic": 1}
    result = clean(tmp_path / "p.jsonl", "--out", tmp_path / "out", "--allow", "shouting")
    assert result.exit_code == 2
    assert "no reason 'shouting'" in result.stderr


# --- with what was heard --------------------------------------------------------------------------------------------


def test_each_pair_has_one_row_with_its_reasons(made: tuple[Path, dict[str, Any]]) -> None:
    table = pairs(made[0] / "cleaned")
    assert {name: list(row["reasons"]) for name, row in table.iterrows()} == EXPECTED
    assert table["recording_id"].is_unique
    assert list(table["keep"]) == [not reasons for reasons in EXPECTED.values()]
    assert made[1]["pairs"] == len(EXPECTED)


def test_english_beside_another_language_is_a_translation(made: tuple[Path, dict[str, Any]]) -> None:
    table = pairs(made[0] / "cleaned")
    assert (table.loc["translated", "task"], table.loc["translated", "language"]) == ("translate", "es")
    mine = examples(made[0] / "cleaned")[lambda rows: rows["task"] == "translate"]
    assert len(mine)
    assert mine["sequence"].str.contains("<|startoftranscript|><|es|><|translate|>", regex=False).all()


def test_hours_of_the_waterfall_are_those_of_the_pairs(made: tuple[Path, dict[str, Any]]) -> None:
    out, counts = made[0] / "cleaned", made[1]
    table, fall = pairs(out), pd.read_csv(out / "waterfall.csv")
    assert fall["pairs"].sum() == len(table)
    assert fall["hours"].sum() == pytest.approx(table["duration_s"].sum() / 3600, abs=1e-5)
    kept = fall[fall["reason"] == "kept"]
    assert kept["hours"].sum() == pytest.approx(counts["kept_hours"], abs=1e-4)
    assert set(fall[fall["reason"] == "language"]["source"]) == {"archive"}
    assert (
        f"| `language` | 1 | {fall[fall['reason'] == 'language']['hours'].sum():.3f}" in (out / "README.md").read_text()
    )


def test_the_worst_source_comes_first(made: tuple[Path, dict[str, Any]]) -> None:
    table = pd.read_csv(made[0] / "cleaned" / "sources.csv")
    assert table.loc[0, "source"] == "blogs"
    assert table.loc[0, "mean_wer"] > 0.9
    hours = pairs(made[0] / "cleaned").loc["unlike", "duration_s"] / 3600
    assert table.loc[0, "badness"] == pytest.approx(table.loc[0, "mean_wer"] * hours, abs=1e-4)


def test_examples_have_exactly_the_audio_that_they_tell_of(made: tuple[Path, dict[str, Any]]) -> None:
    out = made[0] / "cleaned"
    row = next(row for row in pd.read_parquet(out / "data").to_dict("records") if row["uri"].endswith(".flac"))
    audio, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="int16")
    assert (rate, len(audio)) == (16_000, round(row["end"] * 16_000) - round(row["start"] * 16_000))
    source, own = soundfile.read(made[0] / "audio" / "it_centralino.flac")
    there = source[round(row["start"] * own) : round(row["end"] * own)][:: own // rate][: len(audio)]
    assert np.corrcoef(audio[: len(there)], there)[0, 1] > 0.9


def test_every_second_of_a_kept_pair_is_in_the_examples_table(made: tuple[Path, dict[str, Any]]) -> None:
    out = made[0] / "cleaned"
    for row in pairs(out)[lambda table: table["keep"]].itertuples():
        mine = examples(out, kept=None)[lambda rows, id_=row.recording_id: rows["recording_id"] == id_]
        assert (mine["start"].iloc[0], mine["end"].iloc[-1]) == (0.0, pytest.approx(row.duration_s))
        assert (mine["start"].iloc[1:].to_numpy() <= mine["end"].iloc[:-1].to_numpy()).all()
        assert ((mine["end"] - mine["start"]) <= 30.0).all()


def test_no_word_of_a_good_text_is_lost(made: tuple[Path, dict[str, Any]]) -> None:
    out = made[0] / "cleaned"
    id_ = pairs(out).loc["plain", "recording_id"]
    mine = examples(out)[lambda rows: rows["recording_id"] == id_]
    assert " ".join(mine["text"]).split() == REFERENCES["en_switchboard.mp3"].split()


def test_datasets_opens_the_folder(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets

        loaded = datasets.load_dataset(str(made[0] / "cleaned"), cache_dir=str(tmp_path))
    assert isinstance(loaded["train"].features["audio"], datasets.Audio)
    rows = loaded["train"].cast_column("audio", datasets.Audio(decode=False))
    assert sorted(rows["sequence"]) == sorted(examples(made[0] / "cleaned")["sequence"])
    assert rows.num_rows == made[1]["examples"]


def test_webdataset_opens_the_tars(made: tuple[Path, dict[str, Any]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        paths = sorted(map(str, (made[0] / "cleaned" / "webdataset").glob("*.tar")))
        samples = list(webdataset.WebDataset(paths, shardshuffle=False))
    table = examples(made[0] / "cleaned").set_index("clip_id")
    assert {sample["__key__"]: json.loads(sample["json"])["sequence"] for sample in samples} == table[
        "sequence"
    ].to_dict()
    for sample in samples:
        audio, rate = soundfile.read(io.BytesIO(sample["flac"]))
        assert len(audio) / rate == pytest.approx(json.loads(sample["json"])["duration"], abs=1e-3)


# --- the loop -------------------------------------------------------------------------------------------------------


def test_the_same_command_again_changes_nothing(made: tuple[Path, dict[str, Any]], copy: Path) -> None:
    before = content(copy)
    counts, said = again(made[0], copy)
    assert content(copy) == before
    assert "nothing to do" in said
    assert (counts["compared"], counts["recordings_read"]) == (0, 0)
    assert {**counts, "out": ""} == {**made[1], "out": "", "compared": 0, "recordings_read": 0}


def test_dropped_sources_leave_without_any_audio(made: tuple[Path, dict[str, Any]], copy: Path, tmp_path: Path) -> None:
    """The audio is not even there any more; scores are taken from the run before."""
    audio, away = made[0] / "audio", tmp_path / "away"
    audio.rename(away)
    try:
        counts, _ = again(made[0], copy, "--drop-sources", "archive")
    finally:
        away.rename(audio)
    assert (counts["recordings_read"], counts["recordings_removed"], counts["compared"]) == (0, 1, 0)
    table = pairs(copy)
    assert list(table.loc["translated", "reasons"]) == ["source"]
    left = set(table[table["keep"]]["recording_id"])
    assert set(pd.read_parquet(copy / "data")["recording_id"]) == left == set(examples(copy)["recording_id"])
    assert counts["examples"] == len(pd.read_parquet(copy / "data")) < made[1]["examples"]
    assert pd.read_csv(copy / "sources.csv").set_index("source").loc["archive", "dropped"]
    counts, _ = again(made[0], copy)
    assert counts["recordings_read"] == 1  # taken back in
    assert len(pd.read_parquet(copy / "data")) == made[1]["examples"]


def test_a_list_of_sources_may_be_a_file(made: tuple[Path, dict[str, Any]], copy: Path, tmp_path: Path) -> None:
    pd.read_csv(copy / "sources.csv").query("source == 'blogs'").to_csv(tmp_path / "worst.csv", index=False)
    counts, _ = again(made[0], copy, "--drop-sources", tmp_path / "worst.csv")
    assert counts["reasons"]["source"] == 4  # all of it but for the pair without a text
    (tmp_path / "worst.txt").write_text("blogs\nphone\n")
    again(made[0], copy, "--drop-sources", tmp_path / "worst.txt")
    assert set(pairs(copy)[lambda table: table["keep"]].index) == {"copy", "translated"}


def test_an_unknown_source_is_refused(made: tuple[Path, dict[str, Any]], copy: Path) -> None:
    before = content(copy)
    folder = made[0]
    result = clean(
        folder / "pairs.jsonl",
        "--transcripts",
        folder / "transcripts",
        "--out",
        copy,
        *FORMATS,
        "--drop-sources",
        "blog",
    )
    assert result.exit_code == 2
    assert "no pair comes from 'blog'" in result.stderr
    assert content(copy).keys() - before.keys() == set()


def test_other_thresholds_need_only_the_audio_of_what_is_new(made: tuple[Path, dict[str, Any]], copy: Path) -> None:
    counts, _ = again(made[0], copy, "--max-copies", "2")
    assert (counts["recordings_read"], counts["compared"]) == (1, 0)
    assert pairs(copy).loc["copy", "keep"]


def test_a_stricter_threshold_reads_nothing_where_the_examples_stay_the_same(
    made: tuple[Path, dict[str, Any]], copy: Path
) -> None:
    counts, _ = again(made[0], copy, "--max-wer", "0.8")
    assert (counts["recordings_read"], counts["recordings_removed"]) == (0, 0)
    assert counts["examples"] == made[1]["examples"]


def test_examples_of_another_kind_are_refused_with_the_difference(
    made: tuple[Path, dict[str, Any]], copy: Path
) -> None:
    folder = made[0]
    result = clean(
        folder / "pairs.jsonl", "--transcripts", folder / "transcripts", "--out", copy, *FORMATS, "--rate", "8000"
    )
    assert result.exit_code == 2
    assert "rate was 16000, is 8000" in result.stderr


def test_examples_are_not_judged_by_texts_alone(made: tuple[Path, dict[str, Any]], copy: Path) -> None:
    result = clean(made[0] / "pairs.jsonl", "--out", copy, *FORMATS)
    assert result.exit_code == 2
    assert "give --transcripts again" in result.stderr


def test_audio_that_has_changed_is_told_and_taken_up_again(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    file = made[0] / "audio" / "it_centralino.flac"
    file.rename(tmp_path / "away")
    try:
        counts, _ = again(made[0], tmp_path / "cleaned")
    finally:
        (tmp_path / "away").rename(file)
    assert counts["reasons"]["audio"] == 1
    row = pairs(tmp_path / "cleaned").loc["timed"]
    assert (row["keep"], row["audio_error"].partition(":")[0]) == (False, "not_found")
    assert again(made[0], tmp_path / "cleaned")[0]["recordings_read"] == 0
    assert again(made[0], tmp_path / "cleaned", "--retry-failed")[0]["recordings_read"] == 1
    assert pairs(tmp_path / "cleaned").loc["timed", "keep"]


def test_scores_are_made_anew_where_a_text_has_changed(made: tuple[Path, dict[str, Any]]) -> None:
    from pipeline.cleaned import pairs as tables
    from pipeline.transcripts import transcripts
    from pipeline.verdicts import old_scores

    old = old_scores(tables(str(made[0] / "cleaned")))
    assert old
    changed = made[0] / "changed.jsonl"
    changed.write_text((made[0] / "pairs.jsonl").read_text().replace("Weasels have", "Weasels had"))
    verdicts = Verdicts(JudgeOptions(), old)
    verdicts.look(read_pairs([str(changed)]))
    verdicts.hear(transcripts(str(made[0] / "transcripts")))
    assert verdicts.compared == 2  # the plain one and its copy


@pytest.mark.slow
def test_the_loop_of_the_documents_with_the_real_model(tmp_path: Path) -> None:
    """Texts alone, then the transcripts of what they leave, then both."""
    audio = Path(__file__).parents[1] / "examples" / "audio"
    french, italian = REFERENCES["fr_standard.m4a"], REFERENCES["it_centralino.flac"]
    lines = [
        {"uri": str(audio / "fr_standard.m4a"), "text": french, "name": "right"},
        {"uri": str(audio / "it_centralino.flac"), "text": italian.lower(), "name": "small"},
        {"uri": str(audio / "ru_kommutator.ogg"), "text": italian, "name": "foreign"},
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    assert clean(tmp_path / "pairs.jsonl", "--out", tmp_path / "cleaned").exit_code == 0
    heard = ["transcribe", str(tmp_path / "cleaned" / "kept.jsonl"), "--out", str(tmp_path / "first")]
    result = CliRunner().invoke(main, [*heard, "--runner", "local"])
    assert json.loads(result.stdout)["recordings"] == 2, result.output
    result = clean(tmp_path / "pairs.jsonl", "--transcripts", tmp_path / "first", "--out", tmp_path / "cleaned")
    assert result.exit_code == 0, result.output
    table = pairs(tmp_path / "cleaned")
    assert list(table["keep"]) == [True, False, False]
    assert list(table.loc["small", "reasons"]) == ["lower_case", "untranscribed"]
    assert list(table.loc["foreign", "reasons"]) == ["language"]
    assert table.loc["right", "wer"] < 0.2
    made = examples(tmp_path / "cleaned")
    assert " ".join(made["text"]).split() == french.split()
    assert len(made[made["sequence"].str.contains(r"<\|\d+\.\d\d\|>")]) == len(made) == 2
