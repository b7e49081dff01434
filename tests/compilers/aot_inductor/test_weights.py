"""The weights' step: what is written is what engines want, and within rounding of what the checkpoint has."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from tests.networks import tiny_models
from tests.support import tiny
from trtbuild.compilers.aot_inductor import weights
from trtbuild.compilers.aot_inductor.link import read_tensors
from trtbuild.compilers.aot_inductor.structure import ALIGNED, Structure, WeightScheme, tensors
from trtbuild.errors import InputError
from trtbuild.networks.config.architectures import parse
from trtbuild.worker import Reporter, StepRequest

ARCHITECTURES = ["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"]


def made(folder: Path, out: Path, settings: dict[str, Any], **facts: Any) -> Path:
    options = {
        **Structure.of(parse(settings)).facts(),
        "model.dtype": "float32",
        "quant.weights": "none",
        "quant.embedding": True,
        "quant.group_size": 32,
        **{name.replace("__", "."): value for name, value in facts.items()},
    }
    files = {path.name: path for path in folder.iterdir()}
    out.mkdir(parents=True)
    weights.run(StepRequest("weights", options, files, {}, {}, None), out, Reporter(io.StringIO()))
    return out / "model.safetensors"


def read(path: Path) -> dict[str, np.ndarray]:
    """By the library of the format; bfloat16, which its numpy has not, by its bits."""
    found = {}
    with safe_open(path, "np") as file:
        for name in file.keys():  # noqa: SIM118  # it is no mapping
            found[name] = file.get_tensor(name)
    return found


@pytest.fixture(params=ARCHITECTURES)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    settings = tiny_models.config(request.param)
    tiny_models.save(tmp_path / "model", settings, tiny_models.weights(settings))
    tiny.write_tokenizer(tmp_path / "model")
    return tmp_path / "model", settings


@pytest.mark.parametrize("scheme", ["none", "int8", "int4"])
def test_names_types_and_shapes_are_those_that_an_engine_wants(
    checkpoint: tuple[Path, dict[str, Any]], tmp_path: Path, scheme: str
) -> None:
    folder, settings = checkpoint
    path = made(folder, tmp_path / "out", settings, quant__weights=scheme, model__dtype="bfloat16")
    wanted = tensors(Structure.of(parse(settings)), WeightScheme(scheme, 32, True, "bfloat16"))
    assert read_tensors(path) == {name: (each.dtype, list(each.shape)) for name, each in wanted.items()}
    assert (8 + int.from_bytes(path.read_bytes()[:8], "little")) % ALIGNED == 0


def test_unquantized_they_are_the_checkpoints(checkpoint: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, settings = checkpoint
    found = read(made(folder, tmp_path / "out", settings))
    given = tiny_models.weights(settings)
    layer = "model.layers.1"
    joined = [given[f"{layer}.self_attn.{part}_proj.weight"] for part in "qkv"]
    assert np.array_equal(found[f"{layer}.self_attn.qkv_proj.weight"], np.concatenate(joined))
    assert np.array_equal(found["model.embed_tokens.weight"], given["model.embed_tokens.weight"])


def test_int8_is_within_half_a_step(checkpoint: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, settings = checkpoint
    found = read(made(folder, tmp_path / "out", settings, quant__weights="int8"))
    given = tiny_models.weights(settings)["model.layers.0.mlp.down_proj.weight"]
    stored, scales = (found[f"model.layers.0.mlp.down_proj.{leaf}"] for leaf in ("weight", "scales"))
    assert np.abs(stored).max(axis=1).min() == 127
    assert (np.abs(stored * scales[:, None] - given) <= scales[:, None] * 0.501).all()


def test_int4_is_within_a_step_of_its_group(checkpoint: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    """Half a step by rounding, and half a step where the zero was rounded."""
    folder, settings = checkpoint
    found = read(made(folder, tmp_path / "out", settings, quant__weights="int4"))
    given = tiny_models.weights(settings)["model.layers.0.mlp.down_proj.weight"]
    packed, groups = (found[f"model.layers.0.mlp.down_proj.{leaf}"] for leaf in ("weight", "groups"))
    stored = np.stack((packed & 15, packed >> 4), axis=2).reshape(given.shape[0], -1, 32)
    scales, zeros = (groups[:, :, at].T[:, :, None] for at in (0, 1))
    values = (stored.astype(np.float32) - 8) * scales + zeros
    assert (np.abs(values - given.reshape(values.shape)) <= scales * 1.01).all()
    assert (stored.min(axis=2) == 0).any()
    assert (stored.max(axis=2) == 15).any()


def test_sixteen_bits_are_rounded_to_the_nearest(checkpoint: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, settings = checkpoint
    path = made(folder, tmp_path / "out", settings, model__dtype="bfloat16")
    given = tiny_models.weights(settings)["model.norm.weight"].astype(ml_dtypes.bfloat16)
    assert given.tobytes() in path.read_bytes()


def test_bytes_repeat(checkpoint: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, settings = checkpoint
    one, two = (made(folder, tmp_path / name, settings, quant__weights="int4") for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_a_checkpoint_of_another_structure_than_its_pins_say_is_refused(
    checkpoint: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, settings = checkpoint
    with pytest.raises(InputError, match="layers=2, and 3 was expected") as refused:
        made(folder, tmp_path / "out", settings, network__layers=3)
    assert refused.value.option == "model.wheel.config"


def test_a_head_that_is_stored_is_the_engines_whatever_the_config_says(
    checkpoint: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """The key is of the headers, which tell a head that is there and not whether it equals the embedding."""
    _, settings = checkpoint
    tied = settings | {"tie_word_embeddings": True}
    given = tiny_models.weights(settings)
    equal = given | {"lm_head.weight": given["model.embed_tokens.weight"]}
    for name, values in {"other": given, "equal": equal}.items():
        folder = tmp_path / name
        tiny_models.save(folder, tied, values)
        tiny.write_tokenizer(folder)
        found = read(made(folder, tmp_path / f"{name}-out", settings))
        assert np.array_equal(found["lm_head.weight"], values["lm_head.weight"])
    with pytest.raises(InputError, match="stores a head of its own") as caught:
        made(tmp_path / "other", tmp_path / "none", tied)
    assert "tie_word_embeddings" in str(caught.value.hint)


def test_an_embedding_or_a_head_alone_serves_as_both(checkpoint: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    _, settings = checkpoint
    tied = settings | {"tie_word_embeddings": True}
    given = tiny_models.weights(tied)
    alone = {"lm_head.weight" if name.startswith("model.embed") else name: v for name, v in given.items()}
    made_of = []
    for name, values in {"embedding": given, "head": alone}.items():
        tiny_models.save(tmp_path / name, tied, values)
        tiny.write_tokenizer(tmp_path / name)
        made_of.append(made(tmp_path / name, tmp_path / f"{name}-out", tied).read_bytes())
    assert made_of[0] == made_of[1]
