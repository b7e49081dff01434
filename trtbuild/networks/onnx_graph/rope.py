"""Rotary tables: the cosines and sines of every position, for each kind of frequency scaling.

The definitions are those of transformers' `modeling_rope_utils` (_compute_*_parameters), computed in float64.
A network's bytes must repeat on any machine, and neither numpy's nor libm's cosine does: hence `cos_sin`.
"""

from __future__ import annotations

import math

import numpy as np

from trtbuild.networks.config.rope import Rope
from trtbuild.networks.weights.arrays import Array

_ROWS = 4096  # positions per piece: bounds the float64 values alive at once
# pi / 2 in three parts; the first two have 33 bits, so that a product with up to 2^20 turns is exact.
_QUARTER = (1.57079632673412561417, 6.07710050630396597660e-11, 2.02226624879595063154e-21)


def frequencies(rope: Rope, head_dim: int) -> tuple[list[float], float]:
    """Inverse frequencies (head_dim / 2 of them, radians a position) and the factor on cosine and sine."""
    base = [rope.theta ** (-i / head_dim) for i in range(0, head_dim, 2)]
    if rope.kind == "linear":
        return [frequency / rope.factor for frequency in base], 1.0
    if rope.kind == "llama3":
        return [_llama3(rope, frequency) for frequency in base], 1.0
    if rope.kind == "yarn":
        return _yarn(rope, base, head_dim), _yarn_factor(rope)
    if rope.kind == "longrope":
        return [f / divisor for f, divisor in zip(base, rope.factors, strict=True)], _longrope_factor(rope)
    return base, 1.0


def tables(rope: Rope, head_dim: int, positions: int, dtype: np.dtype[np.floating]) -> tuple[Array, Array]:
    """Cosine and sine tables, each [positions, head_dim / 2] in `dtype`, attention factor included.

    Frequencies are rounded to float32 first, as the models were trained with them; a float32 frequency
    times a position is exact in float64.
    """
    inverse, factor = frequencies(rope, head_dim)
    row = np.array(inverse, dtype=np.float32).astype(np.float64)
    cosine = np.empty((positions, head_dim // 2), dtype)
    sine = np.empty_like(cosine)
    for start in range(0, positions, _ROWS):
        stop = min(start + _ROWS, positions)
        angles = np.multiply.outer(np.arange(start, stop, dtype=np.float64), row)
        cosines, sines = cos_sin(angles)
        cosine[start:stop], sine[start:stop] = cosines * factor, sines * factor
    return cosine, sine


def cos_sin(angles: Array) -> tuple[Array, Array]:
    """Cosines and sines of float64 radians from 0 to 1.6 million, to within 3e-16.

    Only additions, multiplications and roundings, which IEEE 754 fixes to the bit: libm's functions differ
    in the last one between CPUs with and without fused multiply-add.
    """
    turns = np.rint(angles * (2 / math.pi))
    rest = ((angles - turns * _QUARTER[0]) - turns * _QUARTER[1]) - turns * _QUARTER[2]
    square = rest * rest
    cosine, sine = np.zeros_like(rest), np.zeros_like(rest)
    for k in range(18, 0, -2):  # Taylor's series, by Horner: |rest| <= pi / 4, so the next term is below 1e-18
        cosine = (1 / math.factorial(k) * (-1) ** (k // 2) + cosine) * square
        sine = (1 / math.factorial(k + 1) * (-1) ** (k // 2) + sine) * square
    cosine, sine = 1 + cosine, rest + rest * sine
    odd, quarter = turns % 2 == 1, turns % 4
    cosine, sine = np.where(odd, sine, cosine), np.where(odd, cosine, sine)
    cosine[(quarter == 1) | (quarter == 2)] *= -1
    sine[quarter >= 2] *= -1
    return cosine, sine


def _llama3(rope: Rope, frequency: float) -> float:
    """Keep short wavelengths, divide long ones by the factor, blend in between."""
    context, low, high = rope.original_max_positions, rope.low_freq_factor, rope.high_freq_factor
    wavelength = 2 * math.pi / frequency
    if wavelength < context / high:
        return frequency
    if wavelength > context / low:
        return frequency / rope.factor
    smooth = (context / wavelength - low) / (high - low)
    return (1 - smooth) * frequency / rope.factor + smooth * frequency


def _yarn(rope: Rope, base: list[float], head_dim: int) -> list[float]:
    """Between the dimensions that turn `beta_fast` and `beta_slow` times, ramp from kept to divided."""

    def dimension(rotations: float) -> float:
        turns = rope.original_max_positions / (rotations * 2 * math.pi)
        return head_dim * math.log(turns) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # as transformers: no division by zero
    scaled = []
    for i, frequency in enumerate(base):
        ramp = min(max((i - low) / (high - low), 0.0), 1.0)
        scaled.append(frequency / rope.factor * ramp + frequency * (1 - ramp))
    return scaled


def _yarn_factor(rope: Rope) -> float:
    def magnitude(weight: float) -> float:
        return 1.0 if rope.factor <= 1 else 0.1 * weight * math.log(rope.factor) + 1.0

    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return magnitude(rope.mscale) / magnitude(rope.mscale_all_dim)
    return magnitude(1.0)


def _longrope_factor(rope: Rope) -> float:
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.factor <= 1:
        return 1.0
    return math.sqrt(1 + math.log(rope.factor) / math.log(rope.original_max_positions))
