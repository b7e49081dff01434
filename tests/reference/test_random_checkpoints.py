"""A checkpoint drawn at random gives an engine with transformers' logits, or is refused: never another engine.

TRTBUILD_DRAWS is how many are drawn (200), TRTBUILD_DRAWS_SEED the seed to have the same again. By hand:

    TRTBUILD_DRAWS=3000 .venv-reference/bin/python -m pytest -m reference tests/reference/test_random_checkpoints.py -s
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.compilers.support import make_network
from tests.networks.graph_runner import Network, write_network
from tests.reference.conftest import DRAWN
from tests.reference.draws import Draw, draw, simpler, write
from tests.reference.families import POSITIONS, TOKENS, TOLERANCE, Fused, difference, torch, transformers
from trtbuild.errors import InputError

pytestmark = pytest.mark.reference

COUNT = int(os.environ.get("TRTBUILD_DRAWS", "200"))
SEED = "TRTBUILD_DRAWS_SEED"
KINDS = ("equal", "refused", "not taken by transformers", "fault")


@dataclass
class Tally:
    """What became of the draws."""

    became: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def of(self, kind: str) -> int:
        return sum(times for (each, _), times in self.became.items() if each == kind)

    def __str__(self) -> str:
        drawn = sum(self.became.values())
        lines = [f"{drawn} drawn: " + ", ".join(f"{self.of(kind)} {kind}" for kind in KINDS)]
        for kind in KINDS[1:]:
            reasons = Counter({reason: times for (each, reason), times in self.became.items() if each == kind})
            lines += [f"  {kind}:"] if reasons else []
            lines += [f"  {times:6} {reason}" for reason, times in reasons.most_common()]
        return "\n".join(lines)


def wanted(usual: Path, drawn: Path) -> np.ndarray | None:
    """transformers' logits, or None where it makes weights up.

    Where it does not know the drawn names, the tensors mean what they mean under their usual ones.
    """
    for folder in (drawn, usual):
        model, loading = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
            trust_remote_code=False,
        )
        if not loading["missing_keys"]:
            with torch.no_grad():
                return model(torch.from_numpy(_tokens(drawn)[None]), use_cache=False).logits[0].numpy()
    return None


def tried(made: Draw, folder: Path) -> tuple[str, str]:
    """What becomes of a draw (one of `KINDS`), and why."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        usual, drawn = write(made, folder)
        expected = wanted(usual, drawn)
        if expected is not None and not np.isfinite(expected).all():
            raise ValueError("not a number")
    except Exception as problem:  # noqa: BLE001
        return "not taken by transformers", _alike(f"{type(problem).__name__}: {problem}")
    try:
        found = computed(drawn, folder / "network", "standard" if made.standard else "fused")
    except InputError as refusal:
        return "refused", _alike(refusal.message)
    except Exception as problem:  # noqa: BLE001
        return "fault", f"a crash: {type(problem).__name__}: {problem}"
    if expected is None:
        return "fault", "an engine of weights that are not there"
    if np.isfinite(found).all() and difference(found, expected) <= TOLERANCE:
        return "equal", ""
    return "fault", "another engine"


def computed(checkpoint: Path, folder: Path, operators: str) -> np.ndarray:
    """The network's logits. Raises InputError when the checkpoint is refused."""
    tokens = _tokens(checkpoint)
    if operators == "fused":
        return Fused(make_network(checkpoint, folder)).step(tokens)
    decoder = write_network({path.name: path for path in checkpoint.iterdir()}, folder, operators)
    return Network(decoder, folder, operators).step(tokens[None])[0]


def shrunk(made: Draw, became: tuple[str, str], folder: Path) -> Draw:
    """A simplest draw of which the same becomes."""
    for less in simpler(made):
        if tried(less, folder) == became:
            return shrunk(less, became, folder)
    return made


def _tokens(folder: Path) -> np.ndarray:
    """As many as the model says that it takes: what lies beyond, no engine computes."""
    config = json.loads((folder / "config.json").read_text())
    return TOKENS[: config.get("max_position_embeddings", POSITIONS)]


def _alike(message: str) -> str:
    """One reason for messages that differ in values alone."""
    line = re.sub(r" /\S+", " …", " ".join(message.split()))
    named = re.search(r"has ([A-Za-z_.]+)=", line)
    if named and not line.startswith("Value"):
        return f"{named[1]}=…: " + line.split(": ", 1)[-1][:70]
    return re.sub(r"\d+", "N", re.sub(r"'[^']*'|\[[^]]*\]", "…", line))[:110]


def test_a_random_checkpoint_is_equal_or_refused(tmp_path: Path, record_property: Callable[[str, object], None]):
    seed = os.environ.get(SEED) or str(random.randrange(10**9))  # dice, no secret
    tally = Tally()
    for at in range(COUNT):
        made = draw(random.Random(f"{seed} {at}"))  # the n-th is the same, however many are drawn
        became = tried(made, tmp_path / "drawn")
        tally.became[became] += 1
        if became[0] == "fault":
            tally.faults.append(f"{became[1]}: {shrunk(made, became, tmp_path / 'drawn')}")
    record_property(DRAWN, f"{SEED}={seed}: {tally}")
    assert not tally.faults, "\n".join([f"{SEED}={seed}", *tally.faults])
    assert tally.of("equal") > COUNT / 10
    assert tally.of("refused") > COUNT / 20
