"""The mean loss of a text, by a decoder in numpy: of a checkpoint, and of what was quantized from it.

It uses neither torch nor ModelOpt, and holds the float32 weight of one linear map at a time. It rounds activations as
the format says, so it measures what a kernel computes that follows the format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from trtbuild.compilers.modelopt.exported import E2M1_MAX, E4M3_MAX, Linear
from trtbuild.compilers.modelopt.schemes import BLOCK
from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.onnx_graph import rope
from trtbuild.networks.weights.arrays import Array

WINDOW = 512  # tokens that attend to each other
_CHUNK = 256  # rows of logits in memory at once
_ROWS = 128  # queries that are multiplied with their keys at once


class DecoderWeights(Protocol):
    """Where the numbers of a decoder come from."""

    def plain(self, name: str) -> Array:
        """A tensor, float32."""

    def linear(self, module: str) -> Linear:
        """A linear map, without its bias."""

    def has(self, name: str) -> bool: ...


Rounding = Callable[[Array, float], Array]


def mean_loss(
    decoder: Decoder, weights: DecoderWeights, tokens: Sequence[int], algorithm: str | None, cache: str | None
) -> float:
    """Nats a token: the mean negative log likelihood of all tokens but the first of each window of `WINDOW`.

    `algorithm` and `cache`, named as in hf_quant_config.json, say how activations, keys and values are rounded.
    """
    pieces = [np.array(tokens[at : at + WINDOW]) for at in range(0, len(tokens), WINDOW)]
    pieces = [piece for piece in pieces if len(piece) > 1]
    embedding = weights.plain("model.embed_tokens.weight")
    states = [embedding[piece] for piece in pieces]
    del embedding
    most = max(map(len, pieces))
    cosine, sine = rope.tables(decoder.rope, decoder.head_dim, most, np.dtype(np.float32))
    maps = _Maps(weights, _ROUNDINGS.get(algorithm or ""))
    for layer in range(decoder.layers):
        states = _layer(decoder, maps, f"model.layers.{layer}", states, (cosine, sine), cache)
    norm = weights.plain("model.norm.weight")
    head = weights.plain("model.embed_tokens.weight" if decoder.tied else "lm_head.weight")
    total = sum(
        _nats(_rms(state, norm, decoder.norm_eps), head, piece) for state, piece in zip(states, pieces, strict=True)
    )
    return total / sum(len(piece) - 1 for piece in pieces)


class _Maps:
    """The linear maps of a checkpoint; each is read once and applied to all pieces."""

    def __init__(self, weights: DecoderWeights, rounding: Rounding | None) -> None:
        self.weights = weights
        self._round = rounding

    def apply(self, module: str, states: list[Array]) -> list[Array]:
        linear = self.weights.linear(module)
        bias = f"{module}.bias"
        offset = self.weights.plain(bias) if self.weights.has(bias) else None
        outputs = []
        for state in states:
            operand = state if linear.smooth is None else state * linear.smooth
            if self._round is not None and not linear.excluded:
                operand = self._round(operand, linear.input_scale or 1.0)
            product = operand @ linear.weight.T
            outputs.append(product if offset is None else product + offset)
        return outputs


def _layer(
    d: Decoder, maps: _Maps, prefix: str, states: list[Array], tables: tuple[Array, Array], cache: str | None
) -> list[Array]:
    weights = maps.weights
    norm = weights.plain(f"{prefix}.input_layernorm.weight")
    normed = [_rms(state, norm, d.norm_eps) for state in states]
    q, k, v = (maps.apply(f"{prefix}.self_attn.{name}_proj", normed) for name in "qkv")
    norms = None
    if d.qk_norm:
        names = (f"{prefix}.self_attn.{name}_norm.weight" for name in "qk")
        norms = (weights.plain(next(names)), weights.plain(next(names)))
    scales = None
    if cache is not None:
        names = (f"{prefix}.self_attn.{name}_proj.{name}_scale" for name in "kv")
        scales = (float(weights.plain(next(names))), float(weights.plain(next(names))))
    mixed = [_attend(d, *qkv, tables, norms, scales) for qkv in zip(q, k, v, strict=True)]
    del q, k, v
    added = maps.apply(f"{prefix}.self_attn.o_proj", mixed)
    states = [state + more for state, more in zip(states, added, strict=True)]
    norm = weights.plain(f"{prefix}.post_attention_layernorm.weight")
    normed = [_rms(state, norm, d.norm_eps) for state in states]
    gate, up = (maps.apply(f"{prefix}.mlp.{name}_proj", normed) for name in ("gate", "up"))
    inner = [_silu(gates) * values for gates, values in zip(gate, up, strict=True)]
    del gate, up
    added = maps.apply(f"{prefix}.mlp.down_proj", inner)
    return [state + more for state, more in zip(states, added, strict=True)]


def _attend(
    d: Decoder,
    q: Array,
    k: Array,
    v: Array,
    tables: tuple[Array, Array],
    norms: tuple[Array, Array] | None,
    scales: tuple[float, float] | None,
) -> Array:
    """Causal attention over one piece: q, k and v are [tokens, …], the result is [tokens, heads * head_dim]."""
    count = len(q)
    q = q.reshape(count, d.heads, d.head_dim)
    k, v = (states.reshape(count, d.kv_heads, d.head_dim) for states in (k, v))
    if norms is not None:
        q, k = _rms(q, norms[0], d.norm_eps), _rms(k, norms[1], d.norm_eps)
    q, k = (_rotate(states, tables, count) for states in (q, k))
    if scales is not None:
        k, v = to_e4m3(k, scales[0]), to_e4m3(v, scales[1])
    q = q * np.float32(d.head_dim**-0.5)
    window = d.sliding_window or count
    mixed = np.empty((count, d.heads, d.head_dim), np.float32)
    for start in range(0, count, _ROWS):
        seen, stop = max(0, start - window + 1), min(start + _ROWS, count)
        distance = np.arange(start, stop)[:, None] - np.arange(seen, stop)
        hidden = np.where((distance < 0) | (distance >= window), np.float32(-np.inf), np.float32(0))
        for head in range(d.heads):
            at = head * d.kv_heads // d.heads
            shares = q[start:stop, head] @ k[seen:stop, at].T
            shares += hidden
            shares -= shares.max(-1, keepdims=True)
            np.exp(shares, out=shares)
            sums = shares.sum(-1, keepdims=True)
            mixed[start:stop, head] = shares @ v[seen:stop, at] / sums
    return mixed.reshape(count, -1)


def _rotate(x: Array, tables: tuple[Array, Array], count: int) -> Array:
    """Rotary positions, for the pairs (i, i + head_dim / 2)."""
    cosine, sine = (table[:count, None] for table in tables)
    first, second = np.split(x, 2, -1)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)


def _rms(x: Array, weight: Array, eps: float) -> Array:
    normed: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(eps)) * weight
    return normed


def _silu(x: Array) -> Array:
    divisor = np.negative(x)
    with np.errstate(over="ignore"):
        np.exp(divisor, out=divisor)
    divisor += 1
    return np.divide(x, divisor, out=divisor)


def _nats(states: Array, head: Array, piece: Array) -> float:
    total = 0.0
    for at in range(0, len(piece) - 1, _CHUNK):
        stop = min(at + _CHUNK, len(piece) - 1)
        logits = states[at:stop] @ head.T
        logits -= logits.max(-1, keepdims=True)
        chosen = logits[np.arange(stop - at), piece[at + 1 : stop + 1]]
        total += float((np.log(np.exp(logits, out=logits).sum(-1)) - chosen).sum())
    return total


def to_e4m3(x: Array, scale: float | Array) -> Array:
    """The nearest E4M3 value at `scale`; ties go to the even one, and larger values to the largest."""
    rounded: Array = np.minimum(np.abs(x) / scale, E4M3_MAX).astype(np.float32, copy=False)
    step = (rounded.view(np.uint32) & 0x7F800000).view(np.float32)  # the largest power of two below it
    np.maximum(step, 2.0**-6, out=step)  # also for subnormal numbers
    step /= 8
    rounded /= step
    np.rint(rounded, out=rounded)
    rounded *= step
    np.copysign(rounded, x, out=rounded)
    rounded *= np.asarray(scale, np.float32)
    return rounded


def _int8(x: Array, scale: float) -> Array:
    rounded: Array = np.clip(np.rint(x / scale), -128, 127) * np.float32(scale)
    return rounded


def _e4m3_rows(x: Array, _scale: float) -> Array:
    """Each token has its own scale."""
    most = np.abs(x).max(-1, keepdims=True) / E4M3_MAX
    return to_e4m3(x, np.maximum(most, np.finfo(np.float32).tiny))


def _e2m1(x: Array, scale: float) -> Array:
    """Blocks of 16 share a scale: an E4M3 value times the tensor's scale."""
    blocks = x.reshape(*x.shape[:-1], -1, BLOCK)
    shared = to_e4m3(np.abs(blocks).max(-1, keepdims=True) / (E2M1_MAX * scale), 1.0) * np.float32(scale)
    shared = np.where(shared == 0, 1, shared)
    magnitude = np.minimum(np.abs(blocks) / shared, E2M1_MAX)
    step = np.where(magnitude < 2, 0.5, np.where(magnitude < 4, 1.0, 2.0))
    rounded: Array = (np.copysign(np.rint(magnitude / step) * step, blocks) * shared).astype(np.float32)
    return rounded.reshape(x.shape)


#: How algorithms round the inputs of linear maps; those not listed do not.
_ROUNDINGS: dict[str, Rounding] = {
    "W8A8_SQ_PER_CHANNEL": _int8,
    "FP8": to_e4m3,
    "FP8_PER_CHANNEL_PER_TOKEN": _e4m3_rows,
    "W4A8_AWQ": to_e4m3,
    "NVFP4": _e2m1,
}
