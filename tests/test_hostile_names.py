"""Whatever recordings are called, nothing is written outside of the output, and no secret is kept or said."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import wave
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from outputs import finished, segment, write_part
from s3_server import s3_server
from tables import read_table
from web_server import PASSWORD, SIGNATURE, USER, web_server

from jobs import main
from jobs.export import _Names, file_stem
from pipeline import storage
from pipeline.sources import recording_id

ROOT = Path(__file__).parents[1]


def wav(seconds: float) -> bytes:
    """Return silence."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(round(seconds * 16_000) * 2))
    return buffer.getvalue()


SHORT = wav(0.1)
SILENCE = (ROOT / "examples" / "audio" / "silence.wav").read_bytes()
HOSTILE = [
    "../../up.wav",
    "/abs/olute.wav",
    "..",
    "../",
    "a\x00b.wav",
    "two\nlines.wav",
    "\x1b[2Jclear.wav",
    "con.wav",
    "NUL",
    "Com1.tar.wav",
    "x" * 400 + ".wav",
    "é" * 400 + ".wav",
    "gnp\u202evaw.wav",
    "full\uff0fwidth/..\uff0fa.wav",
    "a\u2028b.wav",
    ".hidden.wav",
    "-rf.wav",
    "C:\\windows\\a.wav",
    "a:stream.wav",
    "%2e%2e%2fescape.wav",
    "..%2f..%2fescape2.wav",
    "trailing. . .wav",
    "#member=x.wav",
    "caf\udce9.wav",
    " ",
]


def tree(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def tar_of(names: list[str], data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, errors="surrogateescape") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def uris() -> list[str]:
    """Return what recordings of hostile names are called, by each way in which they can be named."""
    web = [f"https://host/{name}" for name in HOSTILE]
    pieces = [storage.with_piece("/a/x.tar", "member", name) for name in HOSTILE]
    rows = [storage.with_piece("s3://b/x.parquet", "path", name) for name in HOSTILE]
    plain = [storage.canonical(f"s3://bucket/{name}") for name in HOSTILE]
    return [uri for uri in web + pieces + rows + plain if "\udce9" not in uri]


def test_a_file_name_is_one_plain_name() -> None:
    for uri in uris():
        stem = file_stem(uri, 1.0, 2.5)
        assert len(f"{stem}-{'0' * 20}.json".encode()) <= 255
        if stem:
            assert not set(stem) & set('/\\:*?"<>|\0\n\r\x1b\u202e\u2028'), uri
            assert stem.strip(". ") == stem
            assert stem.partition(".")[0].lower() not in ("con", "nul", "com1")
            assert os.path.normpath(f"/out/{stem}.srt") == f"/out/{stem}.srt"


def test_no_file_takes_the_name_that_another_gets() -> None:
    names, id_ = _Names(), recording_id("s3://b/x.wav")
    for stem in ("x", "x", f"x-{id_}"):
        names.note(stem)
    given = [names.of(id_, "x"), names.of("1" * 20, "x"), names.of("2" * 20, f"x-{id_}")]
    assert len(set(given)) == 3


@pytest.mark.parametrize("place", ["local", "s3"])
def test_exported_files_stay_in_their_folder(tmp_path: Path, place: str) -> None:
    out = tmp_path / "deep" / "er" / "out"
    items = [finished(recording_id(uri), uri, segment(0, 1, "Hello.")) for uri in uris()]
    write_part(out, "part-0001.parquet", items)
    before = tree(tmp_path)
    if place == "local":
        assert CliRunner().invoke(main, ["export", str(out), "--format", "json"]).exit_code == 0
        new = tree(tmp_path) - before
        assert len(new) == len(items) + 1
        assert {str(Path(path).parent) for path in new} == {"deep/er/out", "deep/er/out/export"}
        return
    with s3_server():
        result = CliRunner().invoke(main, ["export", str(out), "--to", "s3://audio/deep/texts"])
        assert result.exit_code == 0
        assert len(storage.names("s3://audio/deep/texts")) == len(items)
        assert all(entry.uri.startswith("s3://audio/deep/texts/") for entry in storage.walk("s3://audio/"))
    assert tree(tmp_path) == before


def transcribe(cwd: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "jobs", "transcribe", *map(str, arguments), "--model", "fake", "--runner", "local"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(cwd / "tmp")}
    return subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_job_over_hostile_names_writes_its_output_only(tmp_path: Path) -> None:
    for name in ("in", "deep/er", "tmp"):
        (tmp_path / name).mkdir(parents=True)
    members = [name for name in HOSTILE if name.strip().endswith(".wav") and "\0" not in name]
    (tmp_path / "in" / "x.tar").write_bytes(tar_of(members, SHORT))
    column = [{"bytes": SHORT, "path": name} for name in HOSTILE if "\udce9" not in name]
    pq.write_table(pa.table({"audio": column}), tmp_path / "in" / "x.parquet")
    lines = [{"uri": name, "title": name} for name in HOSTILE if "\udce9" not in name]
    (tmp_path / "in" / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    before, out = tree(tmp_path) | {"tmp/.ses"}, tmp_path / "deep" / "er" / "out"  # onnxruntime's
    done = transcribe(
        tmp_path, *(tmp_path / "in" / name for name in ("x.tar", "x.parquet", "list.jsonl")), "--out", out
    )
    assert "Traceback" not in done.stderr
    counts = json.loads(done.stdout)
    assert counts["ok"] == len(members) + len(column), done.stderr
    assert counts["recordings"] == counts["ok"] + counts["failed"]
    assert {path for path in tree(tmp_path) - before if not path.startswith("deep/er/out")} == set()
    assert "\x1b" not in done.stderr
    assert all(row["uri"].isprintable() for row in read_table(str(out), "recordings") if "#" in row["uri"])
    assert CliRunner().invoke(main, ["check", str(out)]).exit_code == 0
    assert CliRunner().invoke(main, ["export", str(out), "--format", "txt"]).exit_code == 0
    assert {path for path in tree(tmp_path) - before if not path.startswith("deep/er/out")} == set()


def test_secrets_of_tars_tables_and_feeds_are_used_and_never_kept_or_said(tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    (tmp_path / "tmp").mkdir()
    (served / "x.tar").write_bytes(tar_of(["a.wav", "b.wav"], SILENCE)[: len(SILENCE) * 3 // 2])
    pq.write_table(pa.table({"audio": [{"bytes": SILENCE, "path": "p.wav"}]}), served / "x.parquet")
    (served / "silence.wav").write_bytes(SILENCE)
    with web_server(served, closed=True) as web:
        password = web.replace("://", f"://{USER}:{PASSWORD}@")
        items = "".join(
            f'<item><title>{url}</title><guid>{url}</guid><enclosure url="{url}" type="audio/wav"/></item>'
            for url in (f"{web}/silence.wav?X-Amz-Signature={SIGNATURE}", f"{password}/gone.wav")
        )
        (served / "feed").write_text(f'<rss version="2.0"><channel>{items}</channel></rss>')
        sources = [f"{password}/x.tar", f"{web}/x.parquet?X-Amz-Signature={SIGNATURE}", f"{password}/feed"]
        runs = [transcribe(tmp_path, *sources, "--out", tmp_path / "out", *more) for more in ((), ("--log-json",))]
        refused = transcribe(tmp_path, f"{password}/none.tar", "--out", tmp_path / "other")
    rows = read_table(str(tmp_path / "out"), "recordings")
    ends = {row["uri"].removeprefix(web): (row["status"], row["error_kind"]) for row in rows}
    assert ends == {
        "/x.tar#member=a.wav": ("ok", None),
        "/x.tar#member=b.wav": ("partial", "truncated"),
        "/x.tar": ("failed", "damaged"),
        "/x.parquet#path=p.wav": ("ok", None),
        "/silence.wav": ("ok", None),
        "/gone.wav": ("failed", "not_found"),
    }
    assert "nothing to do" in runs[1].stderr
    assert refused.returncode == 2
    kept = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    said = "".join(one.stdout + one.stderr for one in (*runs, refused))
    for secret in (PASSWORD, SIGNATURE):
        assert secret.encode() not in kept
        assert secret not in said
        assert secret not in json.dumps(rows, default=str)
