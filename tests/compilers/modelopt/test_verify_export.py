"""The independent reader, and the proof: every fault that a checkpoint may have is found before it is kept."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compilers.modelopt.exporter import Case, export, fp8
from tests.networks import numpy_decoder
from tests.support import tiny
from trtbuild.compilers.modelopt import loss, verify_export
from trtbuild.compilers.modelopt.exported import E4M3, Exported, entries
from trtbuild.compilers.modelopt.schemes import SCHEMES
from trtbuild.errors import BuildError
from trtbuild.networks.config.architectures import parse
from trtbuild.networks.weights.checkpoint import Checkpoint

TOKENS = [int(token) for token in np.random.default_rng(3).integers(0, tiny.VOCAB, 700)]
ALL = [pytest.param(parts, kv, id="/".join(parts) + ("+kv" if kv else "")) for parts in SCHEMES for kv in (False,)]
ALL.append(pytest.param(("fp8", "fp8", "minmax"), True, id="fp8+kv"))


def source(case: Case) -> Checkpoint:
    folder = tiny.write_model(case.folder / "source", **case.changes)
    return Checkpoint.open({path.name: path for path in folder.iterdir()})


def prove(case: Case) -> dict[str, Any]:
    return verify_export.verify(source(case), case.write(), case.scheme, case.facts, TOKENS)


@pytest.mark.parametrize(("parts", "kv"), ALL)
def test_a_checkpoint_as_its_format_has_it_is_proved(parts: tuple[str, str, str], kv: bool, tmp_path: Path) -> None:
    found = prove(Case(tmp_path, parts, kv=kv))
    assert found["loss"]["tokens"] == len(TOKENS)
    assert abs(found["loss"]["quantized"] - found["loss"]["original"]) < 0.1
    assert found["weights"]["compared"] == 20
    assert (found["weights"]["worst_rounding_steps"] > 0.3) == (parts[0] != "none")


def test_the_loss_is_that_of_another_decoder(tmp_path: Path) -> None:
    """That of the tests, in float64 and written apart, window by window."""
    case = Case(tmp_path, ("none", "none", "rtn"))
    total = count = 0.0
    settings = case.config | {"rope_parameters": {"rope_theta": case.config["rope_theta"]}}
    for at in range(0, len(TOKENS), loss.WINDOW):
        piece = np.array(TOKENS[at : at + loss.WINDOW])
        logits = numpy_decoder.forward(settings, case.weights, piece)[:-1]
        logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        total -= logs[np.arange(len(piece) - 1), piece[1:]].sum()
        count += len(piece) - 1
    original = verify_export.Original(source(case), "float32")
    found = loss.mean_loss(parse(case.config), original, TOKENS, None, None)
    assert math.isclose(found, total / count, rel_tol=1e-5)


def test_e4m3_is_as_its_specification_has_it() -> None:
    """Its largest and smallest numbers, a carry, and what is between two of them: to the even one."""
    assert (E4M3[0x7E], E4M3[0x08], E4M3[0x01]) == (448.0, 2.0**-6, 2.0**-9)
    assert np.isnan(E4M3[[0x7F, 0xFF]]).all()
    finite = E4M3[~np.isnan(E4M3)]
    assert (loss.to_e4m3(finite, 1.0) == finite).all()
    given = np.array([17.0, 19.0, 500.0, -460.0, 2.0**-10, 2.0**-10 * 3], np.float32)
    assert loss.to_e4m3(given, 1.0).tolist() == [16.0, 20.0, 448.0, -448.0, 0.0, 2.0**-8]
    some = np.random.default_rng(1).standard_normal(5000).astype(np.float32) * 30
    assert (loss.to_e4m3(some, 1.0) == E4M3[fp8(some)]).all()


def zero_a_scale(case: Case) -> None:
    kind, values = case.tensors[f"{LAYER}.mlp.up_proj.weight_scale"]
    changed = np.array(values).reshape(-1)
    changed[0] = 0
    case.tensors[f"{LAYER}.mlp.up_proj.weight_scale"] = (kind, changed.reshape(np.shape(values)))


def double_a_scale(case: Case) -> None:
    name = f"{LAYER}.self_attn.q_proj.weight_scale"
    kind, values = case.tensors[name]
    case.tensors[name] = (kind, fp8(E4M3[values] * 2) if kind == "F8_E4M3" else values * 2)


def swap_gate_and_up(case: Case) -> None:
    for name in list(case.tensors):
        if ".gate_proj." in name:
            other = name.replace("gate_proj", "up_proj")
            case.tensors[name], case.tensors[other] = case.tensors[other], case.tensors[name]


def swap_nibbles(case: Case) -> None:
    name = f"{LAYER}.mlp.down_proj.weight"
    kind, codes = case.tensors[name]
    case.tensors[name] = (kind, codes >> 4 | codes << 4)


def another_rope_base(case: Case) -> None:
    case.config = case.config | {"rope_theta": 500000.0}


def no_rope_base(case: Case) -> None:
    case.config = {name: value for name, value in case.config.items() if name != "rope_theta"} | {
        "rope_parameters": {"rope_type": "default"}
    }


def lose_a_norm(case: Case) -> None:
    del case.tensors["model.norm.weight"]


def change_a_norm(case: Case) -> None:
    kind, values = case.tensors["model.norm.weight"]
    case.tensors["model.norm.weight"] = (kind, values * 1.01)


def transpose(case: Case) -> None:
    kind, values = case.tensors[f"{LAYER}.self_attn.o_proj.weight"]
    case.tensors[f"{LAYER}.self_attn.o_proj.weight"] = (kind, np.ascontiguousarray(values.T))


def leave_one_as_it_is(case: Case) -> None:
    case.leave(f"{LAYER}.self_attn.k_proj")


def say_another_algorithm(case: Case) -> None:
    case.words["quant_algo"] = "W4A16"


def one_more_tensor(case: Case) -> None:
    case.tensors["model.layers.9.mlp.up_proj.weight"] = ("F32", np.zeros((1, 1), np.float32))


def one_more_scale(case: Case) -> None:
    case.tensors[f"{LAYER}.mlp.up_proj.output_scale"] = ("F32", np.ones((), np.float32))


def a_scale_of_another_map(case: Case) -> None:
    case.tensors["lm_head.weight_scale"] = ("F32", np.ones((), np.float32))


LAYER = "model.layers.1"
INT8, FP8 = ("int8", "none", "rtn"), ("fp8", "fp8", "minmax")
AWQ, NVFP4 = ("int4", "none", "awq"), ("nvfp4", "nvfp4", "minmax")
FAULTS: list[tuple[Callable[[Case], None], tuple[tuple[str, str, str], ...], str]] = [
    (zero_a_scale, (INT8, FP8, AWQ), "a scale that is zero"),
    (zero_a_scale, (NVFP4,), "weights of model.layers.1.mlp.up_proj are further"),
    (double_a_scale, (INT8, FP8, AWQ, NVFP4), "weights of model.layers.1.self_attn.q_proj are further"),
    (swap_gate_and_up, (INT8, FP8, AWQ, NVFP4), "_proj are further from the model's"),
    (swap_nibbles, (AWQ, NVFP4), "weights of model.layers.1.mlp.down_proj are further"),
    (another_rope_base, (FP8,), "the model has"),
    (no_rope_base, (FP8,), "rope"),
    (lose_a_norm, (FP8,), "the checkpoint lacks model.norm.weight"),
    (change_a_norm, (FP8,), "model.norm.weight is not what the model has"),
    (transpose, (INT8, FP8), "model.layers.1.self_attn.o_proj"),
    (leave_one_as_it_is, (FP8,), "was left as it is"),
    (say_another_algorithm, (FP8, AWQ), "quant_algo = W4A16"),
    (one_more_tensor, (FP8,), "which the model does not have"),
    (one_more_scale, (INT8, FP8), "model.layers.1.mlp.up_proj has"),
    (a_scale_of_another_map, (INT8, FP8, AWQ, NVFP4), "has lm_head.weight_scale, for which"),
]


@pytest.mark.parametrize(
    ("fault", "parts", "said"),
    [
        pytest.param(fault, parts, said, id=f"{fault.__name__}-{parts[0]}")
        for fault, schemes, said in FAULTS
        for parts in schemes
    ],
)
def test_what_is_off_is_not_kept(
    fault: Callable[[Case], None], parts: tuple[str, str, str], said: str, tmp_path: Path
) -> None:
    case = Case(tmp_path, parts, rope_theta=30000.0)
    checkpoint = source(case)
    fault(case)
    with pytest.raises(BuildError, match=said.replace("(", r"\(")):
        verify_export.verify(checkpoint, case.write(), case.scheme, case.facts, TOKENS)


@pytest.mark.parametrize("parts", [INT8, FP8, AWQ, NVFP4, ("fp8", "fp8", "rowwise")], ids="/".join)
def test_maps_that_are_left_are_the_models_own(parts: tuple[str, str, str], tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    every = prove(Case(tmp_path / "all", parts, kv=parts == FP8))
    (tmp_path / "some").mkdir()
    some = prove(Case(tmp_path / "some", parts, kv=parts == FP8, excluded=("model.layers.0.*", "*.down_proj")))
    assert some["weights"]["compared"] == every["weights"]["compared"]
    assert some["loss"]["original"] == every["loss"]["original"]
    assert abs(some["loss"]["quantized"] - some["loss"]["original"]) < 0.1


def quantize_one_that_was_to_be_left(case: Case) -> None:
    case.tensors |= export(case.weights, case.scheme, False)


def name_one_that_is_quantized(case: Case) -> None:
    case.words["exclude_modules"].append("model.layers.1.mlp.u*")


def name_none(case: Case) -> None:
    case.words["exclude_modules"] = ["lm_head"]


def change_one_that_was_left(case: Case) -> None:
    name = "model.layers.0.mlp.down_proj.weight"
    changed = case.tensors[name][1].copy()
    changed[0, 0] *= np.float32(1.001)
    case.tensors[name] = ("F32", changed)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (
            quantize_one_that_was_to_be_left,
            "down_proj has input_scale, weight_scale, and is to be left as it is",
        ),
        (name_one_that_is_quantized, "names model.layers.1.mlp.up_proj, which was quantized"),
        (name_none, "does not name model.layers.0.mlp.down_proj, which is to be left as it is"),
        (change_one_that_was_left, "down_proj are further from the model's than a copy explains"),
    ],
)
def test_what_is_off_of_maps_that_are_left(fault: Callable[[Case], None], said: str, tmp_path: Path) -> None:
    case = Case(tmp_path, FP8, excluded=("*.down_proj",))
    checkpoint = source(case)
    fault(case)
    with pytest.raises(BuildError, match=said):
        verify_export.verify(checkpoint, case.write(), case.scheme, case.facts, TOKENS)


def test_activations_that_would_be_cut_off_are_found(tmp_path: Path) -> None:
    """The scale of an input is in no weight: what the model makes of a text tells."""
    case = Case(tmp_path, FP8)
    checkpoint = source(case)
    good = verify_export.verify(checkpoint, case.write(), case.scheme, case.facts, TOKENS)["loss"]
    for name in case.tensors:
        if name.endswith("input_scale"):
            case.tensors[name] = ("F32", np.float32(1e9).reshape(()))  # everything rounds to zero
    case.weights["model.embed_tokens.weight"] *= 40  # a model that has something to lose
    case.tensors["model.embed_tokens.weight"] = ("F32", case.weights["model.embed_tokens.weight"])
    exported = verify_export.ExportedWeights(Exported(entries(case.write()), "FP8", None))
    bad = loss.mean_loss(parse(case.config), exported, TOKENS, "FP8", None)
    assert bad > good["quantized"] + 0.4


@pytest.mark.parametrize("kept", [3, 100, -8])
def test_a_file_that_is_cut_off_is_no_checkpoint(kept: int, tmp_path: Path) -> None:
    made = Case(tmp_path, INT8).write()
    data = (made / "model.safetensors").read_bytes()
    (made / "model.safetensors").write_bytes(data[:kept])
    with pytest.raises(BuildError, match="cannot be read"):
        Exported(entries(made), "W8A16", None)


def test_bfloat16_rounds_to_the_nearest() -> None:
    given = np.array([1.0, 1.00390625, 1.01171875, -3.14159265, 65504.0], np.float32)
    assert verify_export.rounded(given, "bfloat16").tolist() == [1.0, 1.0, 1.015625, -3.140625, 65536.0]
    assert verify_export.rounded(given, "float32").tolist() == given.tolist()
