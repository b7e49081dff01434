"""Rotary tables: exact cosines, the published values of each scaling, and the same bytes everywhere."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from trtbuild.networks.config.rope import Rope
from trtbuild.networks.onnx_graph.rope import cos_sin, frequencies, tables

LLAMA_31 = Rope(500000.0, "llama3", 8.0, 8192, low_freq_factor=1.0, high_freq_factor=4.0)


def test_tables_are_the_cosines_and_sines_of_position_times_frequency():
    cosine, sine = tables(Rope(10000.0), 64, 5000, np.dtype(np.float32))
    assert cosine.shape == sine.shape == (5000, 32)
    for position, i in ((0, 0), (1, 0), (4095, 7), (4096, 7), (4999, 31)):  # around the piece's border too
        angle = position * float(np.float32(10000.0 ** (-2 * i / 64)))
        assert cosine[position, i] == np.float32(math.cos(angle))
        assert sine[position, i] == np.float32(math.sin(angle))


def test_cosines_and_sines_are_within_a_few_last_bits_of_the_truth():
    random = np.random.default_rng(0)
    quarters = np.arange(1000) * (math.pi / 2)  # where one of the two is almost 0
    angles = np.concatenate([[0.0], quarters, random.uniform(0, 10, 20000), random.uniform(0, 1.6e6, 20000)])
    cosine, sine = cos_sin(angles)
    assert np.abs(cosine - [math.cos(angle) for angle in angles]).max() < 3e-16
    assert np.abs(sine - [math.sin(angle) for angle in angles]).max() < 3e-16


def test_llama3_keeps_short_waves_divides_long_ones_and_blends_between():
    plain, _ = frequencies(Rope(500000.0), 128)
    scaled, factor = frequencies(LLAMA_31, 128)
    assert factor == 1.0
    ratios = [before / after for before, after in zip(plain, scaled, strict=True)]
    waves = [2 * math.pi / frequency for frequency in plain]
    for wave, ratio in zip(waves, ratios, strict=True):
        if wave < 8192 / 4:
            assert ratio == 1
        elif wave > 8192:
            assert ratio == pytest.approx(8)
        else:
            assert 1 < ratio < 8
    assert ratios == sorted(ratios)


def test_yarn_scales_the_magnitude_by_its_factor():
    rope = Rope(10000.0, "yarn", 4.0, 2048)
    assert frequencies(rope, 64)[1] == pytest.approx(0.1 * math.log(4) + 1)
    cosine, _ = tables(rope, 64, 2, np.dtype(np.float32))
    assert cosine[0, 0] == np.float32(0.1 * math.log(4) + 1)


def test_longrope_divides_each_frequency_by_its_own_factor():
    factors = tuple(float(i + 1) for i in range(8))
    scaled, magnitude = frequencies(Rope(100.0, "longrope", factors=factors, attention_factor=1.0), 16)
    assert scaled == [100.0 ** (-i / 8) / (i + 1) for i in range(8)]
    assert magnitude == 1.0


def test_the_bytes_are_those_of_every_other_machine():
    """A digest that changes breaks the promise that two machines write the same network."""
    cosine, sine = tables(LLAMA_31, 128, 1000, np.dtype(np.float32))
    digest = hashlib.sha256(cosine.tobytes() + sine.tobytes()).hexdigest()
    assert digest == "a682941b0c6fcd86924d0aab0e8bc1529c839a70a770f9228e1beaf265dc6a58"
