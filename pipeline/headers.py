"""How long an MP3, a WAV, a W64 or a CAF is by its own header, and an Ogg by its last page.

ffmpeg reads an MP3's count only where it can seek, and takes what is left of the others for their whole.
Knows bytes, no files and no decoder.
Sources: ISO 11172-3 and 13818-3 (MP3's frames), the Xing VBR header SDK (the count in the first one), the LAME tag's
specification (padding), ID3v2.4 (the tag before it); RIFF WAVE, EBU Tech 3306 (RF64), Sony's Wave64, Apple's Core Audio
Format; RFC 3533 (Ogg), RFC 7845 (Opus in it), Vorbis I.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}  # Hz, by version
_MPEG1 = 3
_LAYER_3 = 1
_MONO = 3
_TAG = 10  # bytes of an ID3v2 header
_LAME = 24  # bytes of what LAME and its kin write behind the count: name, ..., samples of silence before and after
_ENCODERS = (b"LAME", b"Lavf", b"Lavc")
_SEARCHED = 4096  # bytes behind the tag in which the first frame begins
_LONGEST_PAGE_S = 31  # of an Ogg: 255 packets of 120 ms, the longest of Opus; Vorbis has shorter ones but at 8 kHz
_UNKNOWN = 0x7FFF_0000  # sizes from here on, and 0, are of recorders that did not know or came not to say


def tag_size(head: bytes) -> int:
    """Return the bytes of the ID3v2 tag at the start, 0 where there is none."""
    if len(head) < _TAG or head[:3] != b"ID3":
        return 0
    seven_bits = head[6:10]
    return _TAG + (seven_bits[0] << 21 | seven_bits[1] << 14 | seven_bits[2] << 7 | seven_bits[3])


def needed(head: bytes) -> int:
    """Return how many bytes of the file `counted_s` wants: those behind a tag, else what the first read gives."""
    return tag_size(head) + 2 * _SEARCHED if tag_size(head) else 16


def counted_s(head: bytes) -> float | None:
    """Return the seconds that the header counts, without an encoder's padding; None where it counts none."""
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return _wave(head)
    if head[:4] == b"riff" and head[24:28] == b"wave":
        return _wave64(head)
    if head[:4] == b"caff":
        return _caf(head)
    begin = tag_size(head)
    for at in range(begin, min(begin + _SEARCHED, len(head) - 4)):
        if head[at] == 0xFF and head[at + 1] >= 0xE0:
            found = _frame(head, at)
            if found is not None:
                return found
    return None


def _frame(head: bytes, at: int) -> float | None:
    version, layer = head[at + 1] >> 3 & 3, head[at + 1] >> 1 & 3
    rate = head[at + 2] >> 2 & 3
    if version not in _RATES or layer != _LAYER_3 or rate > 2:
        return None
    mono = head[at + 3] >> 6 == _MONO
    side = (17 if mono else 32) if version == _MPEG1 else (9 if mono else 17)  # bytes between header and count
    place = at + 4 + side
    flags = head[place + 7] if place + 120 + _LAME <= len(head) else 0
    if head[place : place + 4] not in (b"Xing", b"Info") or not flags & 1:
        return None
    samples = int.from_bytes(head[place + 8 : place + 12], "big") * (1152 if version == _MPEG1 else 576)
    behind = place + 8 + sum(size for bit, size in enumerate((4, 4, 100, 4)) if flags >> bit & 1)
    lame = head[behind : behind + _LAME]
    if lame[:4] in _ENCODERS:
        samples -= (lame[21] << 4 | lame[22] >> 4) + ((lame[22] & 0xF) << 8 | lame[23])
    return samples / _RATES[version][rate]


def _wave(head: bytes) -> float | None:
    """Return the length of the first `data` chunk that begins in `head`."""
    at, pace, long = 12, 0, 0
    while at + 24 <= len(head):
        name, size = head[at : at + 4], int.from_bytes(head[at + 4 : at + 8], "little")
        body = head[at + 8 : at + 24]
        if name == b"ds64":
            long = int.from_bytes(body[8:16], "little")
        elif name == b"fmt ":
            pace = int.from_bytes(body[8:12], "little")  # bytes a second
        elif name == b"data":
            size = long if size == 0xFFFF_FFFF else size if size < _UNKNOWN else 0
            return size / pace if size and pace else None
        at += 8 + size + size % 2
    return None


def _wave64(head: bytes) -> float | None:
    at, pace = 40, 0
    while at + 36 <= len(head):
        name, size = head[at : at + 4], int.from_bytes(head[at + 16 : at + 24], "little")  # with these 24 bytes
        if name == b"fmt ":
            pace = int.from_bytes(head[at + 32 : at + 36], "little")
        elif name == b"data":
            return (size - 24) / pace if 24 < size < 1 << 62 and pace else None
        if size < 24:
            return None
        at += size + -size % 8
    return None


def _caf(head: bytes) -> float | None:
    """Return the length by the packets' table, or that of `data` where all packets are equal."""
    at, rate, packet, frames = 8, 0.0, 0, 0
    while at + 36 <= len(head):
        name, size = head[at : at + 4], int.from_bytes(head[at + 4 : at + 12], "big", signed=True)
        body = head[at + 12 : at + 44]
        if name == b"desc" and len(body) == 32:
            rate, packet, frames = struct.unpack(">d8xII8x", body)
            if not (math.isfinite(rate) and rate > 0):
                return None
        elif name == b"pakt" and rate:
            valid = int.from_bytes(body[8:16], "big", signed=True)
            return valid / rate if valid > 0 else None
        elif name == b"data":
            return (size - 4) // packet * frames / rate if size > 4 and packet and rate else None
        if size < 0:
            return None
        at += 12 + size
    return None


@dataclass(frozen=True, slots=True)
class Ogg:
    """What the ends of an Ogg file say."""

    seconds: float
    sample_rate: int
    channels: int


def ogg(head: bytes, tail: bytes) -> Ogg | None:
    """Return what the first and last bytes of an Ogg with Opus or Vorbis say; None for others, or several in a row.

    One that was recorded in the middle of a stream begins at the end of its first page with audio, or a little before.
    """
    last = tail.rfind(b"OggS")
    page = tail[last : last + 18]
    if head[:4] != b"OggS" or last < 0 or len(page) < 18 or page[14:18] != head[14:18]:  # the stream's number
        return None
    position = int.from_bytes(page[6:14], "little", signed=True)  # of the last sample
    at = 27 + head[26] if len(head) > 26 else 0  # behind the page's own header
    packet = head[at : at + 30]
    if packet[:8] == b"OpusHead" and len(packet) >= 12:
        skipped = int.from_bytes(packet[10:12], "little")
        return Ogg(max(0, position - skipped - _begun(head, 48_000)) / 48_000, 48_000, packet[9])
    rate = int.from_bytes(packet[12:16], "little")
    if packet[:7] == b"\x01vorbis" and rate:
        return Ogg(max(0, position - _begun(head, rate)) / rate, rate, packet[11])
    return None


def _begun(head: bytes, rate: int) -> int:
    """Return the position of the first page with audio where it is more than such a page can hold, else 0."""
    at = head.find(b"OggS")
    while at >= 0:
        position = int.from_bytes(head[at + 6 : at + 14], "little", signed=True)
        if position > 0:
            return position if position > _LONGEST_PAGE_S * rate else 0
        at = head.find(b"OggS", at + 4)
    return 0
