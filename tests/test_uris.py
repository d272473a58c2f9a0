from __future__ import annotations

import os

import pytest

from pipeline import uris


@pytest.mark.parametrize(
    ("uri", "same"),
    [
        ("file:///a/b%20c.wav", "/a/b c.wav"),
        ("file://localhost/a/b.wav", "/a/b.wav"),
        ("/a/../b/./c.wav", "/b/c.wav"),
        ("/a/b.wav?sig=1", "/a/b.wav?sig=1"),
        ("s3://key:se/cret@bucket/a b.mp3", "s3://bucket/a b.mp3"),
        ("s3a://bucket/a.mp3", "s3://bucket/a.mp3"),
        ("s3://bucket/a:b@c.mp3", "s3://bucket/a:b@c.mp3"),
        ("s3://bucket/what?X-Amz-Signature=1#2", "s3://bucket/what?X-Amz-Signature=1#2"),
        ("s3://bucket", "s3://bucket/"),
        ("gcs://bucket/a?b#c.mp3", "gs://bucket/a?b#c.mp3"),
        ("azure://box/a b.mp3", "az://box/a b.mp3"),
        ("abfss://box/what?", "az://box/what?"),
        ("az://box@Acc/a.mp3?sv=2020&sig=a%2Bb&se=1", "abfss://box@acc.dfs.core.windows.net/a.mp3"),
        ("abfs://box@acc.blob.core.windows.net/a", "abfss://box@acc.dfs.core.windows.net/a"),
        ("https://me:secret@Host.org/A.mp3#t=3", "https://host.org/A.mp3"),
        ("https://h/a?id=7&X-Amz-Signature=ab&X-Amz-Expires=60", "https://h/a?id=7"),
        ("https://h/a?AWSAccessKeyId=k&Expires=9&Signature=ab&v=2", "https://h/a?v=2"),
        ("https://h/a?X-Goog-Signature=ab&GoogleAccessId=me&Expires=1", "https://h/a"),
        ("https://h/a?sv=2020&st=1&se=2&sp=r&sig=ab&part=3", "https://h/a?part=3"),
        ("https://h/a?st=90&Expires=5&sp=x", "https://h/a?st=90&Expires=5&sp=x"),
    ],
)
def test_canonical_drops_credentials_and_keeps_identity(uri: str, same: str) -> None:
    assert uris.canonical(uri) == same
    assert uris.canonical(same) == same


def test_relative_paths_become_absolute() -> None:
    assert uris.canonical("a.wav") == f"{os.getcwd()}/a.wav"


def test_composed_and_decomposed_names_are_different_files() -> None:
    assert uris.canonical("/\u00e9.wav") != uris.canonical("/e\u0301.wav")


def test_names_that_are_not_utf8_become_percent_encoded_and_come_back() -> None:
    path = os.fsdecode(b"/tmp/caf\xe9 %41.wav")
    uri = uris.canonical(path)
    assert uri == "file:///tmp/caf%E9%20%2541.wav"
    assert uris.local_path(uri) == path
    assert uris.canonical(uri) == uri


def test_remote_uris_have_no_local_path() -> None:
    assert uris.local_path("s3://bucket/a.wav") is None


@pytest.mark.parametrize(
    ("folder", "uri", "found"),
    [
        ("/lists", "a b.wav", "/lists/a b.wav"),
        ("/lists", "/x.wav", "/x.wav"),
        ("/lists", "s3://b/x.wav", "s3://b/x.wav"),
        ("s3://b/lists", "a.wav", "s3://b/lists/a.wav"),
        ("s3://b/lists", "../audio/./a.wav", "s3://b/audio/a.wav"),
        ("s3://b/lists", "../../../../other/a.wav", "s3://b/other/a.wav"),
        ("s3://key:se/cret@b/lists", "../a.wav", "s3://key:se/cret@b/a.wav"),
        ("gs://b/lists", "./a.wav", "gs://b/lists/a.wav"),
        ("https://me:pw@h/lists", "../a b.wav", "https://me:pw@h/a b.wav"),
        ("az://b/lists?sv=1&sig=2", "a.wav", "az://b/lists/a.wav?sv=1&sig=2"),
        ("az://b/lists?sv=1&sig=2", "../a.wav", "az://b/a.wav?sv=1&sig=2"),
    ],
)
def test_relative_uris_are_seen_from_their_folder(folder: str, uri: str, found: str) -> None:
    assert uris.against(folder, uri) == found


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("/a/b.csv", "/a"),
        ("/b.csv", "/"),
        ("https://me:pw@h/lists/a.csv?id=1&X-Amz-Signature=2", "https://me:pw@h/lists"),
        ("s3://key:se/cret@b/a.csv", "s3://key:se/cret@b"),
        ("az://b/x/a.csv?sv=1&sig=2", "az://b/x?sv=1&sig=2"),
    ],
)
def test_the_folder_of_a_file_keeps_what_opens_its_neighbours(uri: str, folder: str) -> None:
    assert uris.parent(uri) == folder


def test_only_what_the_canonical_uri_cannot_open_has_an_address() -> None:
    signed = "https://h/a.mp3?X-Amz-Signature=ab"
    assert uris.address(signed) == signed
    assert uris.address("https://h/a.mp3?id=7") == ""
    assert uris.address("a.wav") == ""


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("cannot open https://me:p@ss@h:80/a.mp3: 403", "cannot open https://h:80/a.mp3: 403"),
        ("https://ghp_token@h/a", "https://h/a"),
        ("s3://key:se/cret@bucket/a@b", "s3://bucket/a@b"),
        ("abfss://box@acc.dfs.core.windows.net/a", "abfss://box@acc.dfs.core.windows.net/a"),
        ("url: /a?X-Amz-Signature=ab&x=1 (Caused by", "url: /a?X-Amz-Signature=...&x=1 (Caused by"),
        ("az://b/k?sv=1&sig=a%2Bb", "az://b/k?sv=1&sig=..."),
        ("https://h:80/a@b.mp3", "https://h:80/a@b.mp3"),
        ("DefaultEndpointsProtocol=https;AccountKey=abc==;x", "DefaultEndpointsProtocol=https;AccountKey=...;x"),
    ],
)
def test_messages_are_redacted(message: str, shown: str) -> None:
    assert uris.redacted(message) == shown
