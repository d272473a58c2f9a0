"""Whole jobs between stores: from each to each, resumed, and without a secret in anything that is kept or said."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from s3_server import s3_server
from store_servers import azurite, gcs_server
from tables import assert_same_tables, assert_whole, read_table
from web_server import PASSWORD, SIGNATURE, USER, web_server

from pipeline import storage

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples" / "audio"


def job(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "jobs", "transcribe", *map(str, arguments), "--model", "fake", "--runner", "local"]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def counts(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_from_each_store_to_each_store(tmp_path: Path) -> None:
    with ExitStack() as servers:
        for server in (s3_server, gcs_server, azurite):
            servers.enter_context(server())
        web = servers.enter_context(web_server(EXAMPLES))
        places = {"s3://audio/in/": "fr_standard.m4a", "gs://audio/in/*.mp3": "en_switchboard.mp3"}
        places |= {"az://audio/in/": "it_centralino.flac"}
        for place, name in places.items():
            storage.write_bytes(place.removesuffix("*.mp3") + name, (EXAMPLES / name).read_bytes())
        sources = [*places, f"{web}/ru_kommutator.ogg", str(EXAMPLES / "silence.wav")]
        outputs = [str(tmp_path / "out"), "s3://audio/out", "gs://audio/out", "az://audio/out"]
        for out in outputs:
            assert counts(job(*sources[:2], "--out", out))["ok"] == 2
            again = counts(job(*sources, "--out", out))
            assert (again["already_done"], again["ok"], again["failed"]) == (2, 3, 0)
            assert "nothing to do" in job(*sources, "--out", out).stderr
            assert_whole(out)
            assert_same_tables(outputs[0], out)
        uris = {row["uri"] for row in read_table(outputs[0], "recordings")}
    assert uris == {
        "s3://audio/in/fr_standard.m4a",
        "gs://audio/in/en_switchboard.mp3",
        "az://audio/in/it_centralino.flac",
        f"{web}/ru_kommutator.ogg",
        str(EXAMPLES / "silence.wav"),
    }


def test_secrets_are_used_and_never_kept_or_said(tmp_path: Path) -> None:
    with web_server(EXAMPLES, closed=True) as web:
        (tmp_path / "list.csv").write_text(
            f"uri\n{web.replace('://', f'://{USER}:{PASSWORD}@')}/silence.wav\n"
            f"{web}/fr_standard.m4a?X-Amz-Signature={SIGNATURE}&X-Amz-Expires=60\n"
            f"{web.replace('://', f'://{USER}:{PASSWORD}@')}/gone.mp3\n"
            f"http://{USER}:{PASSWORD}@nowhere.invalid/a.mp3?X-Amz-Signature={SIGNATURE}\n"
        )
        asked = (tmp_path / "list.csv", "--out", tmp_path / "out", "--store-attempts", 1)
        done, again = job(*asked), job(*asked)
        (tmp_path / "list.csv").write_text(f"uri\n{web}/fr_standard.m4a?X-Amz-Signature=other&X-Amz-Expires=99\n")
        other = job(*asked)
    rows = {row["uri"].rpartition("/")[2]: row for row in read_table(str(tmp_path / "out"), "recordings")}
    statuses = {name: (row["status"], row["error_kind"]) for name, row in rows.items()}
    assert statuses == {
        "silence.wav": ("ok", None),
        "fr_standard.m4a": ("ok", None),
        "gone.mp3": ("failed", "not_found"),
        "a.mp3": ("failed", "unavailable"),
    }
    assert "nothing to do" in again.stderr
    assert "nothing to do" in other.stderr  # what cannot be looked at counts as unchanged
    kept = b"".join(path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    said = "".join(one.stdout + one.stderr for one in (done, again, other)).encode()
    rows_said = json.dumps(list(rows.values()), default=str).encode()  # Parquet is compressed
    for secret in (PASSWORD, SIGNATURE):
        assert secret.encode() not in kept + said + rows_said


def test_an_output_that_is_named_with_credentials_is_shown_without(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server():
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        done = job(EXAMPLES / "silence.wav", "--out", "s3://key:s3cr/et@audio/out")
        assert counts(done)["out"] == "s3://audio/out"
        assert "s3cr/et" not in done.stderr
