"""A real Chromium for tests of pages: npm's (`make test` brings it), $BULKSCRIBE_CHROMIUM, or the machine's.

Where there is none tests are skipped; with BULKSCRIBE_NEEDS_CHROMIUM set, as CI does, they fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

__all__ = ["Browser", "Page", "browser"]

ROOT = Path(__file__).parent.parent
MODULES = ROOT / ".venv" / "npm" / "node_modules"
UNPACKED = ROOT / ".venv" / "npm" / "chromium"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# The package unpacks for AWS Lambda only when it thinks that it is there; its libraries are what a bare machine lacks.
UNPACK = """
import { createRequire } from "node:module";
process.env.AWS_EXECUTION_ENV = "AWS_Lambda_nodejs22.x";
const { default: chromium } = await import("@sparticuz/chromium");
console.log(await chromium.executablePath());
"""


@contextmanager
def browser() -> Iterator[Browser]:
    """Start Chromium; skip the test where there is none."""
    found = _from_npm() or _named() or _installed()
    if found is None:
        reason = "no Chromium: `make test` brings one, or install it, or point BULKSCRIBE_CHROMIUM to one"
        if os.environ.get("BULKSCRIBE_NEEDS_CHROMIUM"):
            pytest.fail(reason)
        pytest.skip(reason)
    path, libraries = found
    environment = {**os.environ, **({"LD_LIBRARY_PATH": libraries} if libraries else {})}
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu"], env=environment, timeout=120_000
        )
        yield started
        started.close()


def _from_npm() -> tuple[str, str] | None:
    """Return the program that npm has brought, unpacked once, and its libraries."""
    path = UNPACKED / "chromium"
    if not path.exists():
        node = ROOT / ".venv" / "bin" / "node"
        if not (MODULES / "@sparticuz" / "chromium").exists() or not node.exists():
            return None
        UNPACKED.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [node, "--input-type=module", "-e", UNPACK],
            cwd=MODULES.parent, env={**os.environ, "TMPDIR": str(UNPACKED)}, check=True, capture_output=True,
        )  # fmt: skip
    return str(path), str(UNPACKED / "al2023" / "lib")


def _named() -> tuple[str, str] | None:
    named = os.environ.get("BULKSCRIBE_CHROMIUM")
    return (named, "") if named else None


def _installed() -> tuple[str, str] | None:
    return next(((path, "") for path in map(shutil.which, NAMES) if path), None)
