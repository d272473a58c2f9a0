"""The network: audio encoder and text decoder (Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak
Supervision"). Knows tensors only: no tokens' meaning, no rules, no slots.

Letters of shapes: N windows, R rows (candidates), T tokens, S cached positions, A audio positions (1500), D width,
H heads, E = D / H, L decoder layers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AUDIO_POSITIONS = 1500  # of the encoder: 50 a second
TEXT_POSITIONS = 448  # of the decoder

# MKL picks its kernel for a float32 product by the number of rows and sums in another order below 16: with at least
# 16 rows a row's result does not depend on its batch mates, to the last bit.
STEADY_ROWS = 16
# For the same reason attention runs over whole blocks of the cache (masked), however far the batch mates have come.
CACHE_STEP = 64


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

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = Linear(width, 3 * width)  # the keys' bias is zero: Whisper has none
        self.out = Linear(width, width)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [R, T, D] -> queries, keys, values, each [R, H, T, E]."""
        rows, length, width = x.shape
        qkv = self.qkv(self.norm(x)).view(rows, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        return q, k, v

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """q [R, H, T, E], k and v [R, H, S, E], mask [R, 1, T, S] -> [R, T, D]."""
        x = F.scaled_dot_product_attention(q.to(k.dtype), k, v, attn_mask=mask)
        return self.out(x.transpose(1, 2).flatten(2).to(q.dtype))  # type: ignore[no-any-return]


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
        """features [N, A, D] -> keys and values [2, N, H, A, E]."""
        windows, positions, width = features.shape
        kv: Tensor = self.kv(features)
        kv = kv.view(windows, positions, 2, self.heads, width // self.heads)
        return kv.permute(2, 0, 3, 1, 4)

    def forward(self, x: Tensor, kv: Tensor, queries: list[Tensor] | None = None) -> Tensor:
        """x [R, T, D], kv [2, N, H, A, E] -> [R, T, D]. The R / N candidates of a window share its keys and values.

        `queries` takes those of x: [N, H, T R / N, E].
        """
        rows, length, width = x.shape
        windows = kv.shape[1]
        share = rows // windows
        q = self.q(self.norm(x)).view(windows, share * length, self.heads, width // self.heads).transpose(1, 2)
        if queries is not None:
            queries.append(q)
        a = F.scaled_dot_product_attention(q.to(kv.dtype), kv[0], kv[1])  # [N, H, share * T, E]
        return self.out(a.transpose(1, 2).reshape(rows, length, width).to(x.dtype))  # type: ignore[no-any-return]


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.mlp = Feedforward(width)

    def forward(self, x: Tensor) -> Tensor:
        """x [N, A, D] -> [N, A, D]."""
        x = x + self.attention.attend(*self.attention.project(x))
        return x + self.mlp(x)  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Causal self-attention over a cache, cross-attention to the audio, feed-forward."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.cross = CrossAttention(width, heads)
        self.mlp = Feedforward(width)

    def forward(
        self,
        x: Tensor,
        positions: Tensor,
        cache: Tensor,
        mask: Tensor,
        kv: Tensor,
        queries: list[Tensor] | None,
    ) -> Tensor:
        """x [R, T, D], positions [R, T], cache [2, R, H, S, E] (written at `positions`), kv [2, N, H, A, E]."""
        q, k, v = self.attention.project(x)
        rows = torch.arange(len(x), device=x.device)[:, None]
        cache[0, rows, :, positions] = k.transpose(1, 2).to(cache.dtype)  # [R, T, H, E]
        cache[1, rows, :, positions] = v.transpose(1, 2).to(cache.dtype)
        x = x + self.attention.attend(q, cache[0, :, :, : mask.shape[-1]], cache[1, :, :, : mask.shape[-1]], mask)
        x = x + self.cross(x, kv, queries)
        return x + self.mlp(x)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Two convolutions (the second halves the rate), sinusoids, layers, norm."""

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(dims.mel_bands, dims.width, 3, padding=1)
        self.conv2 = nn.Conv1d(dims.width, dims.width, 3, stride=2, padding=1)
        self.positions = nn.Parameter(torch.empty(AUDIO_POSITIONS, dims.width))
        self.layers = nn.ModuleList(EncoderLayer(dims.width, dims.heads) for _ in range(dims.encoder_layers))
        self.norm = nn.LayerNorm(dims.width)

    def forward(self, mel: Tensor) -> Tensor:
        """mel [N, bands, 3000] -> features [N, A, D]."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2).contiguous()  # [N, A, D]
        x = x + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Token and position embeddings, layers, norm; the logits are the products with the token embeddings."""

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.tokens = nn.Embedding(dims.vocabulary, dims.width)
        self.positions = nn.Parameter(torch.empty(TEXT_POSITIONS, dims.width))
        self.layers = nn.ModuleList(DecoderLayer(dims.width, dims.heads) for _ in range(dims.decoder_layers))
        self.norm = nn.LayerNorm(dims.width)
        self.head = Linear(dims.width, dims.vocabulary, bias=False)
        self.head.weight = self.tokens.weight

    def audio(self, features: Tensor) -> Tensor:
        """features [N, A, D] -> cross keys and values of all layers [L, 2, N, H, A, E]."""
        return torch.stack([layer.cross.audio(features) for layer in self.layers])  # type: ignore[operator, union-attr]

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor,
        cache: Tensor,
        kv: Tensor,
        reach: int,
        queries: list[Tensor] | None = None,
    ) -> Tensor:
        """Return the hidden states [R, T, D] of `tokens` [R, T] that stand at `positions` [R, T].

        `cache` [L, 2, R, H, S, E] holds the earlier tokens of each row and takes these; `kv` [L, 2, N, H, A, E] is the
        audio; a row sees the cached positions up to its own, of the first `reach`, which must cover them all. `queries`
        takes those to the audio, a layer an item.
        """
        span = min(cache.shape[4], CACHE_STEP * math.ceil(reach / CACHE_STEP))
        mask = torch.arange(span, device=tokens.device) <= positions[:, None, :, None]  # [R, 1, T, S]
        x = self.tokens(tokens) + self.positions[positions]
        for index, layer in enumerate(self.layers):
            x = layer(x, positions, cache[index], mask, kv[index], queries)
        return self.norm(x)  # type: ignore[no-any-return]

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
    def dtype(self) -> torch.dtype:
        """Number format of the encoder, and of the keys and values of both attentions."""
        return self.encoder.positions.dtype

    def new_audio(self, windows: int) -> Tensor:
        """Return room for the cross keys and values of `windows` windows: zeros [L, 2, N, H, A, E]."""
        dims = self.dims
        shape = (dims.decoder_layers, 2, windows, dims.heads, AUDIO_POSITIONS, dims.width // dims.heads)
        return torch.zeros(shape, dtype=self.dtype, device=self.decoder.positions.device)

    def new_cache(self, rows: int, positions: int = TEXT_POSITIONS) -> Tensor:
        """Return an empty cache for `rows` rows: zeros [L, 2, R, H, S, E]."""
        dims = self.dims
        shape = (dims.decoder_layers, 2, rows, dims.heads, positions, dims.width // dims.heads)
        return torch.zeros(shape, dtype=self.dtype, device=self.decoder.positions.device)
