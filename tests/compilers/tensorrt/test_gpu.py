"""The runner of engines, on a stand-in for the GPU: the tokens are those of a plain forward pass."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.compilers.tensorrt import host_gpu
from tests.compilers.tensorrt.support import describe, network
from tests.compilers.tensorrt.test_inference import ANSWER, MODELS, PROMPT, by_forward
from trtbuild.compilers.tensorrt import call_schedule, inspection, shapes
from trtbuild.compilers.tensorrt.gpu import TensorRt
from trtbuild.errors import BuildError
from trtbuild.networks.config.architectures import parse

SETTINGS = MODELS["qwen3"]


def load(kind: str, folder: Path, batch: int = 1) -> tuple[TensorRt, dict[str, Any]]:
    """An engine folder whose engines are ONNX files, and the machine that runs them."""
    decoder, path = network(folder, SETTINGS)
    limits = shapes.ProfileLimits(batch, 16, 64)
    manifest = describe(SETTINGS, kind, limits)
    fixed = []
    for plan in shapes.engines(kind, limits):
        (folder / plan.file).write_bytes(onnx.load(path).SerializeToString())
        made = shapes.inputs(parse(SETTINGS), plan.phases[0])
        fixed.append({name: each[0] for name, each in made.items()} if plan.static else {})
    assert decoder.layers
    trt, device = host_gpu.module(fixed), host_gpu.HostDevice()
    return TensorRt(folder, manifest, trt, device), manifest  # type: ignore[arg-type]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", shapes.SHAPES)
def test_greedy_tokens_are_those_of_a_forward_pass(kind: str, batch: int, tmp_path: Path) -> None:
    machine, manifest = load(kind, tmp_path, batch)
    layout = call_schedule.layout(manifest, len(PROMPT), ANSWER)
    machine.prepare(layout)
    tokens = call_schedule.tokens(machine, layout, PROMPT, lambda logits: int(logits.argmax()))
    assert list(islice(tokens, ANSWER)) == by_forward(SETTINGS)


def test_what_is_known_of_a_loaded_engine(tmp_path: Path) -> None:
    machine, _ = load("static", tmp_path)
    known = {"layers": 12, "scratch_bytes": 345, "precisions": {"FP16": 2, "FP32": 1}}
    assert machine.facts() == [{"file": "decode.engine", **known}, {"file": "prefill.engine", **known}]


@pytest.mark.parametrize("told", ["", "no JSON", "{}", '{"Layers": ["a", "b"]}', '{"Layers": null}'])
def test_an_inspector_that_gives_names_alone_is_taken_as_it_is(told: str) -> None:
    assert inspection.precisions(told) == {}


def test_an_engine_that_does_not_load_is_an_error(tmp_path: Path) -> None:
    _, manifest = load("dynamic", tmp_path)
    (tmp_path / "model.engine").write_bytes(b"")
    with pytest.raises(BuildError, match=r"cannot load model\.engine"):
        TensorRt(tmp_path, manifest, host_gpu.module([]), host_gpu.HostDevice())  # type: ignore[arg-type]
