"""A checkpoint of several ranks is read as one model and proved, and every fault that it may have is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.compilers.tensorrt_llm.exporter import Case
from tests.support import tiny
from trtbuild.compilers.tensorrt_llm import verify_export
from trtbuild.compilers.tensorrt_llm.modelopt_schemes import SCHEMES
from trtbuild.errors import BuildError
from trtbuild.networks.weights.checkpoint import Checkpoint

TOKENS = [int(token) for token in np.random.default_rng(3).integers(0, tiny.VOCAB, 60)]
INT8, INT4 = ("int8", "none", "rtn"), ("int4", "none", "rtn")
FP8, AWQ, SQ = ("fp8", "fp8", "minmax"), ("int4", "none", "awq"), ("int8", "int8", "smoothquant")
SHARED = [
    (1, 1),
    (2, 1),
    (1, 2),
    (2, 2),
    (4, 1),
]  # the model has four heads of queries, two of keys, two layers


def source(case: Case) -> Checkpoint:
    folder = tiny.write_model(case.folder / "source", **case.changes)
    return Checkpoint.open({path.name: path for path in folder.iterdir()})


def prove(case: Case) -> dict[str, Any]:
    return verify_export.verify(source(case), case.write(), case.scheme, case.facts, TOKENS)


@pytest.mark.parametrize(("tp", "pp"), SHARED)
@pytest.mark.parametrize("parts", SCHEMES, ids="/".join)
def test_ranks_are_one_model(parts: tuple[str, str, str], tp: int, pp: int, tmp_path: Path) -> None:
    """The same numbers, and the same loss, however many ranks share it."""
    inner = {"intermediate_size": 128}  # which groups of 16 divide, of four ranks, too
    found = prove(Case(tmp_path, parts, tp=tp, pp=pp, **inner))
    alone = tmp_path / "alone"
    alone.mkdir()
    one = prove(Case(alone, parts, **inner))
    assert found == one
    assert found["weights"]["compared"] == 20
    assert (found["weights"]["worst_rounding_steps"] > 0.3) == (SCHEMES[parts].recipe is not None)
    assert abs(found["loss"]["quantized"] - found["loss"]["original"]) < 0.2


@pytest.mark.parametrize("tp", [1, 2, 4])
def test_keys_and_values_have_one_scale(tp: int, tmp_path: Path) -> None:
    assert prove(Case(tmp_path, FP8, tp=tp, kv=True))["loss"]["tokens"] == len(TOKENS)


def test_a_head_of_its_own_is_read(tmp_path: Path) -> None:
    assert prove(Case(tmp_path, FP8, tp=2, tie_word_embeddings=False))["weights"]["compared"] == 21


def test_a_vocabulary_may_be_padded(tmp_path: Path) -> None:
    """Where ranks do not divide it, and to a multiple of 64 by ModelOpt where AWQ is."""
    case = Case(tmp_path, AWQ, tp=2)
    rows = -(-case.config["vocab_size"] // 64) * 64
    for name in ("transformer.vocab_embedding.weight", "lm_head.weight"):
        whole = np.zeros((rows, case.config["hidden_size"]), np.float32)
        whole[: case.config["vocab_size"]] = case.weights["model.embed_tokens.weight"]
        for rank, part in enumerate(np.split(whole, 2)):
            case.ranks[rank][name] = ("F32", part)
    case.told["vocab_size"] = rows
    prove(case)


LAYER = "transformer.layers.1."


def of(case: Case, name: str, rank: int = 0) -> tuple[str, np.ndarray]:
    return case.ranks[rank][f"{LAYER}{name}"]


def put(case: Case, name: str, values: np.ndarray, rank: int = 0) -> None:
    case.ranks[rank][f"{LAYER}{name}"] = (of(case, name, rank)[0], values)


def zero_a_scale(case: Case) -> None:
    values = of(case, "mlp.gate.weights_scaling_factor")[1].copy()
    values.reshape(-1)[0] = 0
    for rank in range(len(case.ranks)):
        put(case, "mlp.gate.weights_scaling_factor", values, rank)


def swap_fc_and_gate(case: Case) -> None:
    for tensors in case.ranks:
        for name in [name for name in tensors if ".mlp.fc." in name]:
            other = name.replace(".fc.", ".gate.")
            tensors[name], tensors[other] = tensors[other], tensors[name]


def swap_nibbles(case: Case) -> None:
    codes = of(case, "mlp.proj.weight")[1].view(np.uint8)
    put(case, "mlp.proj.weight", (codes >> 4 | codes << 4).view(np.int8))


def swap_ranks(case: Case) -> None:
    case.ranks.reverse()


def no_rope_base(case: Case) -> None:
    del case.told["rotary_base"]


def another_rope_base(case: Case) -> None:
    case.told["rotary_base"] = 10000.0


def a_rank_with_its_own_scale(case: Case) -> None:
    put(
        case,
        "mlp.fc.activation_scaling_factor",
        of(case, "mlp.fc.activation_scaling_factor", 1)[1] * 2,
        1,
    )


def heads_cut_in_two(case: Case) -> None:
    """What ModelOpt writes for two ranks of a model with three heads of keys: rows, wherever heads end."""
    case.ranks, case.facts["parallel.tp"] = [case.ranks[0], dict(case.ranks[0])], 2
    case.told["mapping"] = {"world_size": 2, "tp_size": 2, "pp_size": 1}
    for rank, tensors in enumerate(case.ranks):
        for name in [name for name in tensors if name.endswith("qkv.weight")]:
            kind, whole = tensors[name]
            q, k, v = np.split(whole, [96, 144])  # of six, three and three heads of 16
            tensors[name] = (kind, np.concatenate([np.split(one, 2)[rank] for one in (q, k, v)]))


def a_cache_scale_of_keys(case: Case) -> None:
    put(case, "attention.kv_cache_scaling_factor", np.array([0.02], np.float32))


def no_cache_scale(case: Case) -> None:
    for part in ("k", "v", "kv"):
        del case.ranks[0][f"{LAYER}attention.{part}_cache_scaling_factor"]


def lose_a_norm(case: Case) -> None:
    del case.ranks[0]["transformer.ln_f.weight"]


def one_more_tensor(case: Case) -> None:
    case.ranks[0][f"{LAYER}mlp.fc.zero"] = ("F32", np.zeros(1, np.float32))


def another_head(case: Case) -> None:
    kind, values = case.ranks[0]["lm_head.weight"]
    case.ranks[0]["lm_head.weight"] = (kind, values * 1.5)


def say_another_algorithm(case: Case) -> None:
    case.told["quantization"]["quant_algo"] = "W8A16"


def say_other_groups(case: Case) -> None:
    case.told["quantization"]["group_size"] = 128


def quantize_the_head(case: Case) -> None:
    case.told["quantization"]["exclude_modules"] = []


def say_another_mapping(case: Case) -> None:
    case.told["mapping"]["tp_size"] = 4


def double_a_stored_weight(case: Case) -> None:
    put(case, "mlp.fc.weight", of(case, "mlp.fc.weight")[1] * 2)


FAULTS: list[tuple[Callable[[Case], None], tuple[str, str, str], dict[str, Any], str]] = [
    (zero_a_scale, FP8, {"tp": 2}, "a scale that is zero"),
    (zero_a_scale, SQ, {}, "a scale that is zero"),
    (zero_a_scale, AWQ, {}, "a scale that is zero"),
    (swap_fc_and_gate, FP8, {"tp": 2}, "_proj are further from the model's"),
    (swap_fc_and_gate, AWQ, {}, "_proj are further from the model's"),
    (swap_fc_and_gate, INT8, {}, "_proj are further from the model's"),
    (swap_nibbles, AWQ, {}, "weights of model.layers.1.mlp.down_proj are further"),
    (swap_ranks, FP8, {"tp": 2}, "is not what the model has"),
    (swap_ranks, FP8, {"tp": 4}, "ranks that share a head of keys and values differ|is not what"),
    (swap_ranks, SQ, {"pp": 2}, "rank 0 of the checkpoint lacks transformer.vocab_embedding.weight"),
    (no_rope_base, FP8, {}, "has no rotary_base"),
    (another_rope_base, INT4, {}, "says rope"),
    (a_rank_with_its_own_scale, FP8, {"tp": 2}, "is not the same in all ranks"),
    (
        heads_cut_in_two,
        FP8,
        {"tp": 2, "num_attention_heads": 6, "num_key_value_heads": 3},
        "heads of queries",
    ),
    (a_cache_scale_of_keys, FP8, {"kv": True}, "is not the larger"),
    (no_cache_scale, FP8, {"kv": True}, "2 scales of keys and values, and not 4"),
    (lose_a_norm, FP8, {}, "lacks transformer.ln_f.weight"),
    (one_more_tensor, FP8, {}, "which TensorRT-LLM's loader does not know"),
    (another_head, INT8, {}, "lm_head.weight is not the embedding"),
    (say_another_algorithm, FP8, {}, "quantization.quant_algo = W8A16"),
    (say_other_groups, AWQ, {}, "quantization.group_size = 128"),
    (quantize_the_head, FP8, {}, "lm_head is left as it is"),
    (say_another_mapping, FP8, {"tp": 2}, "mapping"),
    (double_a_stored_weight, INT4, {}, "further from the model's than a copy explains"),
]


@pytest.mark.parametrize(
    ("fault", "parts", "more", "said"),
    [
        pytest.param(*each, id=f"{each[0].__name__}-{each[1][0]}-{'-'.join(map(str, each[2].values()))}")
        for each in FAULTS
    ],
)
def test_what_is_off_is_not_kept(
    fault: Callable[[Case], None],
    parts: tuple[str, str, str],
    more: dict[str, Any],
    said: str,
    tmp_path: Path,
) -> None:
    case = Case(tmp_path, parts, **more, rope_theta=30000.0)
    checkpoint = source(case)
    fault(case)
    with pytest.raises(BuildError, match=said):
        verify_export.verify(checkpoint, case.write(), case.scheme, case.facts, TOKENS)
