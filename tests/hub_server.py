"""A model hub on this machine, for tests: the few answers of the Hugging Face hub that a download takes."""

from __future__ import annotations

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubServer(ThreadingHTTPServer):
    """Serves directories as repositories; `given` lists the files that were downloaded."""

    daemon_threads = True

    def __init__(self, repositories: dict[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.repositories = repositories
        self.given: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Answer(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path).path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        owner, name, verb, *rest = parts[2 if api else 0 :]
        directory = self.server.repositories.get(f"{owner}/{name}")
        if directory is None:
            return self.reply(b"{}", status=404, kind="RepoNotFound")
        if api and verb == "revision":
            return self.reply(json.dumps({"id": f"{owner}/{name}", "sha": COMMIT, "siblings": []}).encode())
        if api:
            return self.reply(json.dumps([entry(path) for path in sorted(directory.iterdir())]).encode())
        path = directory / rest[-1]
        if not path.is_file():
            return self.reply(b"{}", status=404, kind="EntryNotFound")
        if self.command == "GET":
            self.server.given.append(path.name)
        return self.reply(path.read_bytes(), tag=entry(path)["oid"])

    def reply(self, body: bytes, status: int = 200, kind: str = "", tag: str = "") -> None:
        self.send_response(status)
        headers = {"Content-Length": str(len(body)), "X-Repo-Commit": COMMIT, "ETag": f'"{tag}"' if tag else ""}
        for header, value in (headers | {"X-Error-Code": kind}).items():
            if value:
                self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def entry(path: Path) -> dict[str, str | int]:
    """Return what the hub lists of a file."""
    data = path.read_bytes()
    return {"type": "file", "path": path.name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
