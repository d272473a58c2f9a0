"""Recordings of Debian's packages on which no weights were trained, as folders with manifests: music, sounds, speech.

    python bench/elsewhere.py FOLDER
    python bench/quality.py FOLDER/music FOLDER/sounds FOLDER/czech --rows rows.jsonl

Needs `apt-get download` and `dpkg-deb` (Debian and its kin; 1.5 GB are fetched). Music, sounds, and games (both, of
other games) are recordings in which nothing is said, as far as their names tell. Czech is acted dialogue, with its text
(lines with quotes are left out); stamps are what is said of pictures in five languages, with its text. Italian and
Russian are prompts of a telephone exchange, whose text is not known: for `bulkscribe transcribe`, and a person who
reads what it flags. Knows packages and files; no engine and no scores.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import wave
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # before this folder, whose pipeline.py is not the library
from pipeline.decode import Decoder
from pipeline.errors import DecodeError
from pipeline.types import SAMPLE_RATE

MUSIC = {
    "hyperrogue-music": "music",
    "trackballs-data": "music",
    "warmux-data": "music",
}
SOUNDS = {
    "endless-sky-data": "sounds",
    "holotz-castle-data": "sound",
    "lbreakout2-data": "sounds",
    "pinball-data": "pinball",
    "trackballs-data": "sfx",
    "warmux-data": "default",
}
GAMES = (
    "asc-music",
    "drascula-music",
    "planetblupi-music-ogg",
    "singularity-music",
    "extremetuxracer-data",
    "berusky2-data",
    "chromium-bsu-data",
    "enigma-data",
    "foobillardplus-data",
    "naev-data",
    "pushover-data",
    "zaz-data",
    "supertux-data",
    "btanks-data",
    "pekka-kana-2-data",
    "gunroar-data",
    "torus-trooper-data",
    "openclonk-data",
)
MUSIC_BYTES, MUSIC_FILES, SOUND_FILES = 400_000, 8, 6  # from which size on a file is music; how many of each game
STAMPS = ("bg", "ca", "da", "el", "ro")
WORDS, EACH = 6, 40  # of a stamp's text at least; about so many stamps of a language
PROMPTS = {"it": "asterisk-core-sounds-it-g722", "ru": "asterisk-core-sounds-ru-g722"}
VOICES = re.compile(r"/voices/|excellent|verygood|damn|wontgiveup|laugh|sherif")  # sounds that people make
PEOPLE = re.compile(r"voice|speech|talk|player|female|male|taunt|announc|scream|human|shout")  # likewise, in GAMES
ENDINGS = (".ogg", ".opus", ".wav", ".g722")
LONGEST, LEAST = 20 * SAMPLE_RATE, SAMPLE_RATE // 2
FASTEST = 25  # characters a second: what is shorter than its text is an empty file in its place
TIMES, PAUSE = 4, int(0.7 * SAMPLE_RATE)  # a sound comes so often, with pauses
LINE = re.compile(r'dialogId\("([^"]+)", "[^"]*", "[^"]*"\)\s*dialogStr\("([^"]+)"\)')


class Take(NamedTuple):
    """A recording to be cut from a file."""

    file: Path
    source: str  # package
    text: str | None
    language: str | None = None
    times: int = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    with tempfile.TemporaryDirectory() as scratch:
        mirror = Mirror(Path(scratch))
        write(folder / "music", mirror.files(MUSIC))
        write(folder / "sounds", mirror.files(SOUNDS, every=3, times=TIMES))
        write(folder / "games", mirror.games())
        write(folder / "stamps", mirror.stamps())
        write(folder / "czech", mirror.dialogue("cs", every=15))
        for language, package in PROMPTS.items():
            write(folder / language, mirror.prompts(language, package, every=4))


class Mirror:
    """Unpacked packages."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch

    def unpacked(self, package: str) -> Path:
        """Return the folder of a package's files, which is fetched the first time."""
        folder = self._scratch / package
        if not folder.exists():
            subprocess.run(["apt-get", "download", "-q", package], cwd=self._scratch, check=True)
            (archive,) = self._scratch.glob(f"{package}_*.deb")
            subprocess.run(["dpkg-deb", "-x", archive, folder], check=True)
        return folder

    def files(self, packages: dict[str, str], *, every: int = 1, times: int = 1) -> Iterator[Take]:
        """Yield takes in which nothing is said, of the files under a folder of that name in each package."""
        for package, name in packages.items():
            root = self.unpacked(package)
            folders = sorted(path for path in root.rglob(name) if path.is_dir())
            found = [file for folder in folders for file in recordings(folder)]
            mute = [file for file in found if not VOICES.search(str(file.relative_to(root)).lower())]
            yield from (Take(file, package, "", times=times) for file in mute[::every])

    def games(self) -> Iterator[Take]:
        """Yield takes in which nothing is said: some long files and some short ones of each game."""
        rng = random.Random(5)
        for package in GAMES:
            root = self.unpacked(package)
            found = recordings(root, (*ENDINGS, ".mp3"))  # the other folders leave these out, as they were heard
            mute = [file for file in found if not PEOPLE.search(str(file.relative_to(root)).lower())]
            music = [file for file in mute if file.stat().st_size > MUSIC_BYTES]
            sounds = [file for file in mute if file.stat().st_size <= MUSIC_BYTES]
            rng.shuffle(music)
            rng.shuffle(sounds)
            yield from (Take(file, package, "") for file in music[:MUSIC_FILES])
            yield from (Take(file, package, "", times=TIMES) for file in sounds[:SOUND_FILES])

    def stamps(self) -> Iterator[Take]:
        """Yield what is said of a drawing program's stamps, with its text."""
        package = "tuxpaint-stamps-default"
        scripts = sorted(self.unpacked(package).rglob("*.txt"))
        for language in STAMPS:
            takes = []
            for script in scripts:
                sound = script.with_name(f"{script.stem}_desc_{language}.ogg")
                text = re.search(rf"^{language}\.utf8=(.*)$", script.read_text(encoding="utf-8"), re.MULTILINE)
                if sound.exists() and text and len(text[1].split()) >= WORDS:
                    takes.append(Take(sound, package, text[1], language))
            yield from takes[:: max(1, len(takes) // EACH)]

    def dialogue(self, language: str, *, every: int) -> Iterator[Take]:
        """Yield spoken lines of a game, with their texts."""
        scripts = self.unpacked("fillets-ng-data").rglob(f"dialogs_{language}.lua")
        texts = {
            (script.parent.name, name): text
            for script in scripts
            for name, text in LINE.findall(script.read_text(encoding="utf-8"))
        }
        package = f"fillets-ng-data-{language}"
        spoken = [file for file in recordings(self.unpacked(package)) if (file.parts[-3], file.stem) in texts]
        for file in spoken[::every]:
            yield Take(file, package, texts[file.parts[-3], file.stem], language)

    def prompts(self, language: str, package: str, *, every: int) -> Iterator[Take]:
        """Yield sentences of a telephone exchange; those in folders are letters and numbers."""
        found = [file for file in recordings(self.unpacked(package)) if file.parent.parent.name == "sounds"]
        yield from (Take(file, package, None, language) for file in found[::every])


def recordings(folder: Path, endings: tuple[str, ...] = ENDINGS) -> Sequence[Path]:
    """Return the files under a folder that are recordings."""
    return sorted(path for path in folder.rglob("*") if path.suffix in endings and path.is_file())


def write(folder: Path, takes: Iterable[Take]) -> None:
    """Write takes, and a manifest of them."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, take in enumerate(takes):
        try:
            pcm = np.concatenate(list(Decoder(lambda take=take: take.file.open("rb"), str(take.file)).blocks()))  # type: ignore[misc]
        except DecodeError as error:
            print(f"{take.file.name} is left out: {error}")  # noqa: T201
            continue
        if take.times > 1:
            pcm = np.tile(np.pad(pcm, (0, PAUSE)), take.times)
        pcm = pcm[:LONGEST]
        if len(pcm) < max(LEAST, len(take.text or "") / FASTEST * SAMPLE_RATE):
            continue
        name = f"{number:03}_{take.file.stem}.wav"
        with wave.open(str(folder / name), "wb") as out:
            out.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
            out.writeframes(pcm.tobytes())
        told = {"text": take.text, "language": take.language, "source": f"Debian {take.source}"}
        entries.append({"uri": name, "duration_s": len(pcm) / SAMPLE_RATE} | told)
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    (folder / "manifest.jsonl").write_text(lines, encoding="utf-8")
    print(f"{folder.name}: {len(entries)} recordings, {sum(one['duration_s'] for one in entries) / 60:.1f} min")  # noqa: T201


if __name__ == "__main__":
    main()
