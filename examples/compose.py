"""Compose examples/audio/ and examples/references.jsonl from Debian's Asterisk prompts and hold music.

    mkdir debs && cd debs && apt-get download asterisk-moh-opsound-g722 \
        asterisk-core-sounds-en-g722 asterisk-core-sounds-es-g722 asterisk-core-sounds-fr-g722 \
        asterisk-core-sounds-it-g722 asterisk-core-sounds-ru-g722
    python examples/compose.py debs

Needs dpkg-deb, and numpy and imageio-ffmpeg from the project's environment. Whose work this is: LICENSES.md.
The texts are those of the packages' lists, with accents and misspellings put right, and without a word that a list
has but the voice does not say.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

RATE = 16_000  # Hz, as the prompts are
PAUSE = 0.7  # seconds between two prompts
HERE = Path(__file__).parent
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()

# Prompts that are used once, by language and name: what the voice says.
TEXTS = {
    "en/basic-pbx-ivr-main": (
        "Thank you for calling Super Awesome Company, Waldo's premier provider of perfect products. If you know "
        "your party's extension, you may dial it at any time. To establish a sales partnership, press one. To "
        "speak with a customer advocate, press two. For accounting and other receivables, press three. For a "
        "company directory, press four. For an operator, press zero."
    ),
    "en/tt-allbusy": (
        "All representatives of the household are currently assisting other telemarketers. Please hold and your "
        "call will be answered in the order it was received."
    ),
    "en/tt-weasels": ("Weasels have eaten our phone system."),
    "en/demo-congrats": (
        "Congratulations. You have successfully installed and executed the Asterisk open source PBX. You have "
        "also installed a set of sample sounds and configuration files that should help you to get started. Like "
        "a normal PBX you will navigate this demonstration by dialing digits. If you are using a console channel "
        "driver instead of a real phone you can use the dial, answer, and hang up commands to simulate the "
        "actions of a standard telephone."
    ),
    "en/demo-moreinfo": (
        "Asterisk is an open source full-featured PBX and IVR platform that runs on the Linux operating system. "
        "For more information, visit www.asterisk.org."
    ),
    "en/demo-instruct": (
        "If you would like to learn more technical information about Asterisk dial 2 now. If you'd like to test "
        "out the voice over IP capabilities of Asterisk you can dial 500 to attempt an Inter-Asterisk Exchange or "
        "IAX connection to a demonstration server at Digium. In order for this test to work you will need to be "
        "connected to the Internet and have at least a 28.8 kilobit modem. To execute an echo test dial 600. This "
        "test is most useful when you have connected to this Asterisk server from a remote location. The sample "
        "configuration also has a single user with extension 1234 and password 4242. That user is configured to "
        "ring the console when their extension is dialed. If you dial 1234 you can try to ring the console. If "
        "the console is busy or unavailable you will be given the option to leave voicemail. To check voicemail "
        "for the user dial extension 8500 to enter the voicemail system. You can press the pound key to "
        "disconnect from the PBX."
    ),
    "en/demo-echotest": (
        "You are about to enter an echo test. In this mode everything you say will be repeated back to you just "
        "as soon as it is received. The purpose of this test is to give you an audible sense of the latency "
        "between you and the machine that is running the echo test application. You may end the test by hanging "
        "up or by pressing the pound key."
    ),
    "en/demo-abouttotry": (
        "I am about to attempt an Inter-Asterisk Exchange connection to a demonstration server located at Digium. "
        "In order for this to work you must already be connected to the Internet. Please wait a moment while I "
        "attempt to make the connection."
    ),
    "en/demo-nogo": (
        "I am afraid I was unable to create a connection to the Digium demonstration Asterisk server. You may "
        "find some helpful debugging information on the Asterisk console."
    ),
    "en/demo-thanks": ("Goodbye. Thank you for trying out the Asterisk open source PBX."),
    "es/tt-allbusy": (
        "Todos los representantes de la casa se encuentran ocupados asistiendo a otros vendedores por teléfono. "
        "Por favor espere y su llamada será atendida en el orden que fue recibida."
    ),
    "es/demo-nogo": (
        "Lo siento, pero no fue posible crear la conexión al servidor de demostración en Digium. Puede encontrar "
        "información útil para solucionar el problema en la consola de Asterisk."
    ),
    "es/ss-noservice": (
        "El número que usted ha marcado está fuera de servicio. Por favor verifique el número y vuelva a intentar."
    ),
    "fr/tt-allbusy": (
        "Tous nos préposés sont présentement occupés. Votre appel est important pour nous, merci de bien vouloir "
        "patienter afin de conserver votre priorité d'appel."
    ),
    "fr/demo-abouttotry": (
        "Je vais maintenant tenter une connexion Inter-Asterisk Exchange avec un serveur de démonstration situé "
        "chez Digium. Pour que cela fonctionne vous devez être connecté à Internet. Veuillez attendre pendant que "
        "je tente d'établir la connexion."
    ),
    "fr/ss-noservice": ("Le numéro composé n'est pas en service. Veuillez vérifier le numéro et essayer de nouveau."),
    "fr/invalid": ("Désolé, ce numéro de poste n'est pas valide. Veuillez essayer de nouveau."),
    "it/demo-nogo": (
        "Sono spiacente ma non sono stato in grado di creare una connessione con il server Asterisk dimostrativo "
        "della Digium. Potrai trovare maggiori informazioni di debug nella console Asterisk."
    ),
    "it/tt-allbusy": (
        "Tutti gli operatori della ditta sono al momento impegnati con altri clienti. Rimanga in linea e la sua "
        "chiamata verrà risposta secondo l'ordine in cui è stata ricevuta."
    ),
    "it/ss-noservice": ("Il numero che ha digitato non è in uso. Prego controllare il numero e riprovare."),
    "it/vm-newuser": (
        "Benvenuto nel sistema di gestione della posta vocale. In primo luogo, ti guiderò attraverso un breve "
        "processo di installazione."
    ),
    "ru/tt-allbusy": (
        "В данный момент все операторы заняты. Пожалуйста, оставайтесь на линии, ваш вызов будет принят в порядке "
        "очереди."
    ),
    "ru/demo-nogo": (
        "Подключение к демонстрационному серверу «Астериск», расположенному в Дигиум, не осуществилось. Вы можете "
        "найти полезную информацию для устранения ошибки в консоли «Астериск»."
    ),
    "ru/queue-periodic-announce": (
        "Все наши операторы заняты. Пожалуйста, оставайтесь на линии, и ваш звонок будет обслужен первым "
        "доступным оператором."
    ),
    "ru/vm-newuser": ("Добро пожаловать в голосовую почту! Для начала прослушайте инструкцию по настройке ящика."),
}

# A part is the name of a prompt, (piece of music, first second, seconds), or seconds of silence.
Part = str | tuple[str, float, float] | float
COLD_DAY, COFFEE = "macroform-cold_day", "manolo_camp-morning_coffee"
FILES: dict[str, tuple[list[str], list[Part]]] = {
    "en_switchboard.mp3": (["-b:a", "40k"], ["en/basic-pbx-ivr-main", "en/tt-allbusy", "en/tt-weasels"]),
    "es_centralita.opus": (["-b:a", "24k"], ["es/tt-allbusy", "es/demo-nogo", "es/ss-noservice"]),
    "fr_standard.m4a": (
        ["-b:a", "40k", "-movflags", "+faststart"],
        ["fr/tt-allbusy", "fr/demo-abouttotry", "fr/ss-noservice", "fr/invalid"],
    ),
    "it_centralino.flac": ([], ["it/demo-nogo", "it/tt-allbusy", "it/ss-noservice", "it/vm-newuser"]),
    "ru_kommutator.ogg": (
        ["-codec:a", "libvorbis", "-b:a", "32k"],
        ["ru/tt-allbusy", "ru/demo-nogo", "ru/queue-periodic-announce", "ru/vm-newuser"],
    ),
    "episode.m4a": (  # its index is at the end: it cannot be read from a pipe
        ["-b:a", "32k"],
        [
            (COFFEE, 0.0, 12.0),
            "en/demo-congrats",
            "en/demo-moreinfo",
            (COLD_DAY, 60.0, 14.0),
            "en/demo-instruct",
            8.0,
            "en/demo-echotest",
            (COLD_DAY, 120.0, 10.0),
            "en/demo-abouttotry",
            5.0,
            "en/demo-nogo",
            "en/demo-thanks",
            (COFFEE, 30.0, 12.0),
        ],
    ),
    "music.mp3": (["-b:a", "48k"], [(COLD_DAY, 20.0, 30.0)]),
    "silence.wav": (["-ar", "8000", "-codec:a", "pcm_mulaw"], [12.0]),
}
TRUNCATED, TRUNCATED_BYTES = "truncated.m4a", 64_000  # the start of episode.m4a, without its index: ffmpeg refuses it


def unpack(folder: Path) -> dict[str, bytes]:
    """Return the G.722 sounds of the packages: prompts as `en/NAME`, music as `NAME`."""
    sounds = {}
    for package in sorted(folder.glob("asterisk-*-g722_*.deb")):
        tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            for member in archive:
                if not member.name.endswith(".g722"):
                    continue
                folders, name = member.name.split("/")[4:-1], Path(member.name).stem
                key = name if folders == ["moh"] else f"{folders[1][:2]}/{'/'.join([*folders[2:], name])}"
                sounds[key] = archive.extractfile(member).read()  # type: ignore[union-attr]
    return sounds


def render(part: Part, sounds: dict[str, bytes]) -> NDArray[np.int16]:
    """Return the samples of one part; music fades in and out."""
    if isinstance(part, float):
        return np.zeros(round(part * RATE), np.int16)
    name, start, seconds = part if isinstance(part, tuple) else (part, 0.0, None)
    command = [FFMPEG, "-v", "error", "-f", "g722", "-i", "pipe:", "-f", "s16le", "pipe:"]
    raw = subprocess.run(command, input=sounds[name], capture_output=True, check=True).stdout
    pcm = np.frombuffer(raw, np.int16)
    if seconds is None:
        return pcm
    pcm = pcm[round(start * RATE) :][: round(seconds * RATE)]
    fade = np.interp(np.arange(len(pcm)), [0, RATE, len(pcm) - RATE, len(pcm)], [0, 1, 1, 0])
    return (pcm * fade).astype(np.int16)


def main(folder: Path) -> None:
    """Write every file of `FILES`, the truncated one and the references."""
    sounds, audio, references = unpack(folder), HERE / "audio", []
    audio.mkdir(exist_ok=True)
    for name, (codec, parts) in FILES.items():
        pause = np.zeros(round(PAUSE * RATE), np.int16)
        pcm = np.concatenate([piece for part in parts for piece in (render(part, sounds), pause)])
        command = [FFMPEG, "-v", "error", "-y", "-f", "s16le", "-ar", str(RATE), "-ac", "1", "-i", "pipe:"]
        subprocess.run([*command, "-bitexact", *codec, audio / name], input=pcm.tobytes(), check=True)
        said = [part for part in parts if isinstance(part, str)]
        if said:
            text = " ".join(TEXTS[part] for part in said)
            references.append({"uri": f"audio/{name}", "text": text, "language": said[0][:2]})
    (audio / TRUNCATED).write_bytes((audio / "episode.m4a").read_bytes()[:TRUNCATED_BYTES])
    lines = (json.dumps(reference, ensure_ascii=False) + "\n" for reference in references)
    (HERE / "references.jsonl").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
