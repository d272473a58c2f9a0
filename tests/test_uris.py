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
    ],
)
def test_relative_uris_are_seen_from_their_folder(folder: str, uri: str, found: str) -> None:
    assert uris.canonical(uris.against(folder, uri)) == found
