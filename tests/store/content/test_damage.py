"""Some damaged stores, bundles and envelopes by dice; `tests.store.faults.damage` tries thousands."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.store.faults import damage


@pytest.mark.parametrize("kind", [damage.stores, damage.bundles])
def test_damage_gives_no_wrong_bytes_no_traceback_and_no_hang(tmp_path: Path, kind) -> None:
    seed = random.randrange(10**6)  # dice, no secret
    counts, findings = kind(tmp_path, seed, 30)
    assert not findings, f"seed {seed}: {findings}"
    assert sum(counts.values()) >= 30
