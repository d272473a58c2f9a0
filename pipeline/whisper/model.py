"""The network: audio encoder and text decoder (Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak
Supervision"). Knows tensors only: no tokens' meaning, no rules, no slots.

Letters of shapes: N windows, R rows (candidates), T tokens, S cached positions, A audio positions (1500), A' those
that are encoded, D width, H heads, E = D / H, L decoder layers, M tokens of many rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend

from pipeline.whisper.device import Bfloat16, bfloat16, onto
from pipeline.whisper.padding import AUDIO_POSITIONS, WHOLE, Padding, Thinned
from pipeline.whisper.tiles import vacate

TEXT_POSITIONS = 448  # of the decoder

# MKL picks its kernel for a float32 product by the number of rows and sums in another order below 16: with at least
# 16 rows a row's result does not depend on its batch mates, to the last bit.
STEADY_ROWS = 16
# For the same reason attention runs over whole blocks of the cache (masked), however far the batch mates have come.
CACHE_STEP = 64
# And whole texts attend one by one: in half precision attention takes another path where the longest is long.
GPU_BATCH = 16  # windows; on a GPU rows do depend on their batch mates, in the last digits

# Of attention to keys of bfloat16 on a CPU, whatever the model's format is. Most queries for which plain products are
# quicker than torch's kernel, which takes five times as long for one of them without tiles, up to twice for several:
PLAIN = {Bfloat16.TILES: 0, Bfloat16.VECTORS: math.inf, Bfloat16.CONVERTED: 1}
FEW = 64  # queries of which plain products take all heads at once
MANY = 1000  # positions from which on an encoder of float32 gains by rounding to it, where it is multiplied in vectors
QUERIES = 500  # whose scores of all keys a core's cache holds

# Of what computes attention, cuDNN is the quickest for a shape that recurs, but makes a plan for each new one: 2.4 ms
# a layer on an H100. Texts and prompts have all shapes.
ANY_SHAPE = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


@dataclass(frozen=True)
class Dims:
    """The sizes of a checkpoint."""

    mel_bands: int
    vocabulary: int
    width: int
    heads: int
    encoder_layers: int
    decoder_layers: int


class Linear(nn.Linear):
    """A linear map whose rows do not depend on how many there are."""

    def forward(self, x: Tensor) -> Tensor:
        """x [..., D] -> [..., D']."""
        rows = x.numel() // x.shape[-1]
        if rows >= STEADY_ROWS or x.is_cuda or x.dtype != torch.float32:
            return super().forward(x)
        flat = F.pad(x.reshape(rows, -1), (0, 0, 0, STEADY_ROWS - rows))
        return super().forward(flat)[:rows].view(*x.shape[:-1], -1)


class Feedforward(nn.Module):
    """LayerNorm, then two linear maps around a GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = Linear(width, 4 * width)
        self.down = Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., D] -> [..., D]."""
        return self.down(F.gelu(self.up(self.norm(x))))  # type: ignore[no-any-return]


class SelfAttention(nn.Module):
    """LayerNorm, then attention of x to itself; queries, keys and values come of one product."""

    rounded = False  # whether attention of many positions multiplies in bfloat16

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width)  # the keys' bias is zero: Whisper has none
        self.out = Linear(width, width)

    def project(self, x: Tensor) -> Tensor:
        """x [..., D] -> queries, keys and values [..., 3, H, E]."""
        qkv: Tensor = self.qkv(self.norm(x))
        return torch.unflatten(qkv, -1, (3, self.heads, -1))

    def forward(self, x: Tensor, bias: Tensor | None = None, count: int | None = None) -> Tensor:
        """x [N, A', D], bias of the keys [1, 1, 1, A'] -> [N, A', D].

        Where `count` is given, positions from there on are none: the bias closes them, or without one they are vacated.
        """
        q, k, v = self.project(x).permute(2, 0, 3, 1, 4)  # each [N, H, A', E]
        if bias is None and count is not None:
            vacate(k, v, count)
        heard = (attend_rounded if self.rounded and x.shape[1] >= MANY else attend)(q, k, v, bias)
        return self.out(heard.flatten(2))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """LayerNorm, then attention of the text to the audio, whose keys and values are computed once a window."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.q = Linear(width, width)
        self.kv = Linear(width, 2 * width)  # the keys' bias is zero
        self.out = Linear(width, width)

    def audio(self, features: Tensor) -> Tensor:
        """features [N, A', D] -> keys and values [2, N, H, A', E]."""
        kv: Tensor = self.kv(features)
        return torch.unflatten(kv, -1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)

    def project(self, x: Tensor) -> Tensor:
        """x [..., D] -> queries [..., H, E]."""
        q: Tensor = self.q(self.norm(x))
        return torch.unflatten(q, -1, (self.heads, -1))


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """q [R, H, T, E], k and v [R, H, S, E], mask [R, 1, T, S] or bias [1, 1, 1, S] -> [R, T, H, E], as q in format."""
    queries = q.shape[2]
    if k.dtype == torch.bfloat16 and k.device.type == "cpu" and queries <= PLAIN[bfloat16()]:
        if queries <= FEW:
            return _attend_together(q, k, v, mask)
        if mask is None or mask.is_floating_point():
            return _attend_in_turn(q, k, v, mask)
    heard = F.scaled_dot_product_attention(q.to(k.dtype), k, v, attn_mask=mask)
    return heard.transpose(1, 2).to(q.dtype)


def _attend_together(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """See `attend`, all heads at once."""
    scores = ((q * q.shape[-1] ** -0.5).to(k.dtype) @ k.transpose(2, 3)).float()  # [R, H, T, S]
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    heard: Tensor = scores.softmax(3).to(v.dtype) @ v  # [R, H, T, E]
    return heard.transpose(1, 2).to(q.dtype)


def _attend_in_turn(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """See `attend`, head by head: scores stay in the caches."""
    rows, heads, length, size = q.shape
    heard = torch.empty_like(q, dtype=k.dtype)  # [R, H, T, E]
    scaled = (q * size**-0.5).to(k.dtype)
    room = k.new_empty(2, min(QUERIES, length), k.shape[2])
    for row, head, start in product(range(rows), range(heads), range(0, length, QUERIES)):
        some = slice(start, start + QUERIES)
        scores, weights = room[:, : min(QUERIES, length - start)]
        torch.mm(scaled[row, head, some], k[row, head].T, out=scores)
        if bias is not None:
            scores += bias[0, 0]
        torch.softmax(scores, 1, out=weights)
        torch.mm(weights, v[row, head], out=heard[row, head, some])
    return heard.transpose(1, 2).to(q.dtype)


def attend_rounded(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """See `attend`; float32 that is rounded to bfloat16.

    Keys are taken from their mean, which changes no weight but leaves small scores, whose rounding matters less
    (Zhang et al. 2024, "SageAttention").
    """
    return attend(q, (k - k.mean(2, keepdim=True)).bfloat16(), v.bfloat16(), bias)


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.mlp = Feedforward(width)

    def forward(self, x: Tensor, bias: Tensor | None = None, count: int | None = None) -> Tensor:
        """x [N, A', D], bias and count as of `SelfAttention` -> [N, A', D]."""
        x = x + self.attention(x, bias, count)
        return x + self.mlp(x)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Feed:
    """Tokens of some rows, and what they look back on. Feeds go through the decoder together: it reads itself once."""

    tokens: Tensor  # int64 [R, T]
    positions: Tensor  # int64 [R, T]
    cache: Tensor  # keys and values of the text [L, 2, R, H, S, E]: of the earlier tokens; takes those of these
    audio: Tensor  # keys and values of the audio [L, 2, N, H, A or A', E]; R / N candidates of a window share them
    reach: int  # cached positions that cover those of all rows
    queries: list[Tensor] | None = None  # takes the queries to the audio, [N, H, T R / N, E] a layer
    padding: Padding = WHOLE  # of the windows

    def mask(self) -> Tensor:
        """Return which cached positions a token sees, its own and the earlier ones: bool [R, 1, T, S']."""
        span = min(self.cache.shape[4], CACHE_STEP * math.ceil(self.reach / CACHE_STEP))
        return torch.arange(span, device=self.positions.device) <= self.positions[:, None, :, None]

    @cached_property
    def _biases(self) -> list[Tensor | None]:
        return [thinned.bias(self.audio) if thinned else None for _, thinned in self.padding]

    def remember(self, layer: int, qkv: Tensor, mask: Tensor) -> Tensor:
        """Attend to the text. qkv [R T, 3, H, E] -> [R T, D]."""
        cache = self.cache[layer]
        if self.tokens.shape[1] == 1 and qkv.is_cuda:
            from pipeline.whisper import kernels  # loads Triton, which a CPU has no use for

            if kernels.usable(qkv.device, qkv.shape[-1]):
                return kernels.remember(qkv, self.positions[:, 0], cache)
        q, k, v = torch.unflatten(qkv, 0, self.tokens.shape).unbind(2)  # each [R, T, H, E]
        rows = torch.arange(len(q), device=q.device)[:, None]
        cache[0, rows, :, self.positions] = k.to(cache.dtype)
        cache[1, rows, :, self.positions] = v.to(cache.dtype)
        span = mask.shape[-1]
        return attend(q.transpose(1, 2), cache[0, :, :, :span], cache[1, :, :, :span], mask).flatten(2).flatten(0, 1)

    def listen(self, layer: int, q: Tensor) -> Tensor:
        """Attend to the audio. q [R T, H, E] -> [R T, D]."""
        k, v = self.audio[layer]
        q = torch.unflatten(q, 0, (k.shape[0], -1)).transpose(1, 2)  # [N, H, T R / N, E]
        if self.queries is not None:
            self.queries.append(q)
        heard = []
        for (windows, thinned), bias in zip(self.padding, self._biases, strict=True):
            keys, values = k[windows], v[windows]
            if thinned and keys.shape[2] > thinned.positions:  # a slot's room
                keys, values = thinned.dense(keys), thinned.dense(values)
            heard.append(attend(q[windows], keys, values, bias))
        return _joined(heard).flatten(2).flatten(0, 1)


class DecoderLayer(nn.Module):
    """Causal self-attention over a cache, cross-attention to the audio, feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.cross = CrossAttention(width, heads)
        self.mlp = Feedforward(width)

    def forward(self, x: Tensor, feeds: Sequence[Feed], masks: Sequence[Tensor], index: int) -> Tensor:
        """x [M, D] -> [M, D]: the tokens of all feeds, one after the other; `index` is the layer's."""
        sizes = [feed.tokens.numel() for feed in feeds]
        parts = zip(feeds, torch.split(self.attention.project(x), sizes), masks, strict=True)
        x = x + self.attention.out(_joined([feed.remember(index, qkv, mask) for feed, qkv, mask in parts]))
        asked = zip(feeds, torch.split(self.cross.project(x), sizes), strict=True)
        x = x + self.cross.out(_joined([feed.listen(index, q) for feed, q in asked]))
        return x + self.mlp(x)  # type: ignore[no-any-return]


def wide(kv: Tensor) -> Tensor:
    """Return keys and values [..., E] as numbers of 8 bytes, for copying: a slice is copied number by number."""
    return kv.view(torch.int64)


def together(windows: Sequence[Tensor]) -> Tensor:
    """Return the keys and values of windows, [L, 2, H, A, E] each, as [L, 2, N, H, A, E]."""
    if len(windows) == 1:
        return windows[0][:, :, None]
    return torch.stack([wide(one) for one in windows], 2).view(windows[0].dtype)


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


class Convolution(nn.Conv1d):
    """A convolution of width 3 over time, positions before channels: a linear map of overlapping stretches."""

    def __init__(self, channels: int, width: int, stride: int = 1) -> None:
        super().__init__(channels, width, 3, stride=stride, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, T, C] -> [N, T / stride, D], as x in format."""
        windows, length, channels = x.shape
        padded = F.pad(x.to(self.weight.dtype), (0, 0, 1, 1)).contiguous()  # [N, T + 2, C]
        shape = (windows, length // self.stride[0], 3 * channels)
        stretches = padded.as_strided(shape, (padded.stride(0), self.stride[0] * channels, 1))
        return F.linear(stretches, self.weight.transpose(1, 2).flatten(1), self.bias).to(x.dtype)


class Encoder(nn.Module):
    """Two convolutions (the second halves the rate), sinusoids, layers, norm."""

    filled_to = 1  # positions are filled up to a multiple of so many

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.conv1 = Convolution(dims.mel_bands, dims.width)
        self.conv2 = Convolution(dims.width, dims.width, stride=2)
        self.positions = nn.Parameter(torch.empty(AUDIO_POSITIONS, dims.width))
        self.layers = nn.ModuleList(EncoderLayer(dims.width, dims.heads) for _ in range(dims.encoder_layers))
        self.norm = nn.LayerNorm(dims.width)

    def forward(self, mel: Tensor, thinned: Thinned | None = None) -> Tensor:
        """mel [N, bands, 3000] -> features [N, A', D]; A' is 1500, or what is left of `thinned` padding."""
        if thinned is None:
            x, bias = self._convolved(mel) + self.positions, None
        else:
            places = thinned.places.to(mel.device)
            x = self._convolved(mel[..., : thinned.frames])[:, places.clamp(max=thinned.heard)] + self.positions[places]
            bias = thinned.bias(x)
        count, more = x.shape[1], -x.shape[1] % self.filled_to
        if more:
            x = F.pad(x, (0, 0, 0, more))
            bias = None if bias is None else F.pad(bias, (0, more), value=-math.inf)
        for layer in self.layers:
            x = layer(x, bias, count if more else None)
        return self.norm(x[:, :count])  # type: ignore[no-any-return]

    def _convolved(self, mel: Tensor) -> Tensor:
        """mel [N, bands, T] -> [N, T / 2, D]."""
        return F.gelu(self.conv2(F.gelu(self.conv1(mel.transpose(1, 2)))))


class Decoder(nn.Module):
    """Token and position embeddings, layers, norm; the logits are products with the token embeddings, unless the
    checkpoint has others for them.
    """

    # Number format of the audio's keys and values, of which a step reads more than of all weights; None: as computed.
    audio_dtype: torch.dtype | None = None

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        # Empty: to fill it with random numbers, as it is made, loads torch's compiler, two seconds in each process.
        empty = torch.empty(dims.vocabulary, dims.width)
        self.tokens = nn.Embedding.from_pretrained(empty, freeze=False)  # type: ignore[no-untyped-call]
        self.positions = nn.Parameter(torch.empty(TEXT_POSITIONS, dims.width))
        self.layers = nn.ModuleList(DecoderLayer(dims.width, dims.heads) for _ in range(dims.decoder_layers))
        self.norm = nn.LayerNorm(dims.width)
        self.head = Linear(dims.width, dims.vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def audio(self, features: Tensor) -> Tensor:
        """features [N, A', D] -> cross keys and values of all layers [L, 2, N, H, A', E]."""
        found: Tensor | None = None
        for index, layer in enumerate(self.layers):
            kv = layer.cross.audio(features)  # type: ignore[operator, union-attr]
            found = kv.new_empty(len(self.layers), *kv.shape, dtype=self.audio_dtype) if found is None else found
            found[index] = kv  # one by one: all layers' at once would take twice the memory
        assert found is not None
        return found

    def forward(self, feeds: Sequence[Feed]) -> list[Tensor]:
        """Return the hidden states [R, T, D] of the tokens of each feed."""
        x = torch.cat([(self.tokens(feed.tokens) + self.positions[feed.positions]).flatten(0, 1) for feed in feeds])
        masks = [feed.mask() for feed in feeds]
        for index, layer in enumerate(self.layers):
            x = layer(x, feeds, masks, index)
        hidden = torch.split(self.norm(x), [feed.tokens.numel() for feed in feeds])
        return [torch.unflatten(one, 0, feed.tokens.shape) for feed, one in zip(feeds, hidden, strict=True)]

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden [R, D] -> float32 logits [R, vocabulary]."""
        return self.head(hidden).float()  # type: ignore[no-any-return]


class Whisper(nn.Module):
    """Encoder and decoder of one checkpoint."""

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.dims = dims
        self.encoder = Encoder(dims)
        self.decoder = Decoder(dims)
        self.alignment_heads: tuple[tuple[int, int], ...] = ()  # (layer, head): they tell word times

    @property
    def device(self) -> torch.device:
        return self.decoder.positions.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the encoder, and of the keys and values of the text."""
        return self.encoder.positions.dtype

    @property
    def audio_dtype(self) -> torch.dtype:
        """Number format of the keys and values of the audio."""
        return self.decoder.audio_dtype or self.dtype

    @property
    def batch(self) -> int:
        """Windows whose spectrograms are put together, or texts that attend together. A CPU's caches hold one."""
        return GPU_BATCH if self.device.type == "cuda" else 1

    @property
    def bytes_of_audio(self) -> int:
        """The size of a window's cross keys and values."""
        return self.dims.decoder_layers * 2 * AUDIO_POSITIONS * self.dims.width * self.audio_dtype.itemsize

    @property
    def bytes_of_cache(self) -> int:
        """The size of a row's cache."""
        return self.dims.decoder_layers * 2 * TEXT_POSITIONS * self.dims.width * self.dtype.itemsize

    def new_audio(self, windows: int) -> Tensor:
        """Return room for the cross keys and values of `windows` windows: zeros [L, 2, N, H, A, E]."""
        dims = self.dims
        shape = (dims.decoder_layers, 2, windows, dims.heads, AUDIO_POSITIONS, dims.width // dims.heads)
        return torch.zeros(shape, dtype=self.audio_dtype, device=self.device)

    def feed(
        self,
        texts: Sequence[Sequence[int]],
        audio: Tensor,
        queries: list[Tensor] | None = None,
        padding: Padding = WHOLE,
    ) -> Feed:
        """Return whole texts from the first position on, beside the `audio` [L, 2, N, H, A, E] of each, or of all.

        Behind the shorter ones stand zeros, which none of their own tokens sees.
        """
        longest = max(map(len, texts))
        tokens = torch.zeros((len(texts), longest), dtype=torch.int64)
        for row, text in enumerate(texts):
            tokens[row, : len(text)] = torch.tensor(text)
        positions = torch.arange(longest, device=self.device).expand(len(texts), -1)
        cache = self.new_cache(len(texts), CACHE_STEP * math.ceil(longest / CACHE_STEP))
        return Feed(onto(self.device, tokens), positions, cache, audio, longest, queries, padding)

    def new_cache(self, rows: int, positions: int = TEXT_POSITIONS) -> Tensor:
        """Return an empty cache for `rows` rows: zeros [L, 2, R, H, S, E]."""
        dims = self.dims
        shape = (dims.decoder_layers, 2, rows, dims.heads, positions, dims.width // dims.heads)
        return torch.zeros(shape, dtype=self.dtype, device=self.device)
