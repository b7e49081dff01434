"""Checkpoints as people have them (other names, other types, heads that are tied or not) compute transformers' logits.

Where transformers understands the names itself, both sides read the same files. Where it does not (it would make up
weights at random, with a warning), it reads the same tensors under their plain names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.networks.graph_runner import Network
from tests.networks.tiny_models import config, save, weights
from trtbuild.errors import InputError
from trtbuild.networks.config.architectures import parse
from trtbuild.networks.onnx_graph.emit import check, emit
from trtbuild.networks.weights.checkpoint import Checkpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors = pytest.importorskip("safetensors.numpy")

pytestmark = pytest.mark.reference

IDS = np.random.default_rng(6).integers(0, 96, 48)
TOLERANCE = 1e-4  # of the largest logit
HEAD, EMBEDDING, NORM = "lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"
Tensors = dict[str, np.ndarray]

PLAIN, TIED = config(), config(tie_word_embeddings=True)
WHOLE = weights(PLAIN)
NORMLESS = {name: values for name, values in WHOLE.items() if name != NORM}
HEADLESS = {name: values for name, values in WHOLE.items() if name != HEAD}


def reference(folder: Path) -> np.ndarray:
    """Logits [position, vocab]; fails when transformers made a weight up."""
    model, told = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not told["missing_keys"]
    with torch.no_grad():
        return model(torch.from_numpy(IDS[None])).logits[0].numpy()


def written(folder: Path, settings: Mapping[str, Any], *shards: Tensors) -> Path:
    """A folder with the tensors as they are given; of several shards the index names the first that holds a tensor."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    if len(shards) == 1:
        safetensors.save_file(shards[0], folder / "model.safetensors", {"format": "pt"})
        return folder
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        safetensors.save_file(shard, folder / file, {"format": "pt"})
        places = dict.fromkeys(shard, file) | places
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def built(folder: Path, out: Path) -> np.ndarray:
    """Logits of the fused network, made as the step makes it."""
    checkpoint = Checkpoint.open({path.name: path for path in folder.iterdir()})
    decoder = checkpoint.retied(parse(checkpoint.config))
    out.mkdir()
    check(checkpoint, decoder, "fused")
    emit(checkpoint, decoder, "fused", np.dtype("float32"), out / "model.onnx", lambda *_: None)
    return Network(decoder, out, "fused").step(IDS[None])[0]


def same(found: np.ndarray, wanted: np.ndarray) -> None:
    assert np.abs(found - wanted).max() <= TOLERANCE * np.abs(wanted).max()


def renamed(tensors: Tensors, prefix: str = "", old: str = "", new: str = "") -> Tensors:
    return {prefix + name.replace(old, new, 1): values for name, values in tensors.items()}


def bare(tensors: Tensors) -> Tensors:
    return {name.removeprefix("model."): values for name, values in tensors.items()}


INSIDE = {name.replace("self_attn.", "self_attn._orig_mod."): values for name, values in WHOLE.items()}
PEFT = renamed(
    {
        name.replace("q_proj.", "q_proj.base_layer.").replace(HEAD, "lm_head.modules_to_save.default.weight"): values
        for name, values in WHOLE.items()
    },
    "base_model.model.",
)
INTEGERS = {
    "model.layers.0.self_attn.bias": np.ones((1, 1, 8, 8), bool),
    "model.position_ids": np.arange(8)[None],
    "model.layers.1.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32),
    "model.layers.1.attn.masked_bias": np.full((), -1e4, np.float32),
    "model.steps": np.array(7),
}
#: What transformers reads as it is: config, tensors in one file or in shards.
UNDERSTOOD: dict[str, tuple[dict[str, Any], tuple[Tensors, ...]]] = {
    "tied, with another head": (TIED, (WHOLE,)),
    "tied, with the same head": (TIED, (WHOLE | {HEAD: WHOLE[EMBEDDING]},)),
    "tied, with a head alone": (TIED, ({k: v for k, v in WHOLE.items() if k != EMBEDDING},)),
    "tied, with an embedding alone": (TIED, (HEADLESS,)),
    "untied, with equal matrices": (PLAIN, (WHOLE | {HEAD: WHOLE[EMBEDDING]},)),
    "without model.": (TIED, (bare(HEADLESS),)),
    "without model., and a head": (PLAIN, (bare(WHOLE),)),
    "with model. twice": (PLAIN, (renamed(WHOLE, "model."),)),
    "float64": (PLAIN, ({name: values.astype(np.float64) for name, values in WHOLE.items()},)),
    "float16 beside float32": (PLAIN, (WHOLE | {EMBEDDING: WHOLE[EMBEDDING].astype(np.float16)},)),
    "buffers": (PLAIN, (WHOLE | INTEGERS,)),
    "an equal copy in the shard behind": (
        PLAIN,
        (NORMLESS, {NORM: WHOLE[NORM], EMBEDDING: WHOLE[EMBEDDING]}),
    ),
}
#: What it does not: the tensors as they are stored, for the plain ones `WHOLE`.
STRIPPED = {
    "language_model.model": renamed(WHOLE, "language_model."),
    "model.language_model": renamed(WHOLE, "", "model.", "model.language_model."),
    "_orig_mod in front": renamed(WHOLE, "_orig_mod."),
    "_orig_mod inside": INSIDE,
    "module": renamed(WHOLE, "module."),
    "module and _orig_mod": renamed(WHOLE, "module._orig_mod."),
    "PEFT": PEFT,
    "PEFT with originals": PEFT | {"base_model.model.lm_head.original_module.weight": np.zeros_like(WHOLE[HEAD])},
    "FSDP": renamed(WHOLE, "_fsdp_wrapped_module."),
}


@pytest.mark.parametrize("name", UNDERSTOOD)
def test_what_transformers_understands_has_its_logits(name: str, tmp_path: Path):
    settings, shards = UNDERSTOOD[name]
    folder = written(tmp_path / "m", settings, *shards)
    same(built(folder, tmp_path / "out"), reference(folder))


@pytest.mark.parametrize("family", ["MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"])
def test_each_family_has_its_own_head_and_may_lack_the_prefix(family: str, tmp_path: Path):
    settings = config(family, tie_word_embeddings=True)
    folder = written(tmp_path / "m", settings, bare(weights(settings | {"tie_word_embeddings": False})))
    same(built(folder, tmp_path / "out"), reference(folder))


@pytest.mark.parametrize("name", STRIPPED)
def test_wrapped_names_have_the_logits_of_the_plain_ones(name: str, tmp_path: Path):
    folder = written(tmp_path / "m", PLAIN, STRIPPED[name])
    same(built(folder, tmp_path / "out"), reference(written(tmp_path / "plain", PLAIN, WHOLE)))


def test_a_head_equal_to_the_embedding_is_stored_once(tmp_path: Path):
    for name, head in {"same": WHOLE[EMBEDDING], "other": WHOLE[HEAD]}.items():
        built(written(tmp_path / name, TIED, WHOLE | {HEAD: head}), tmp_path / f"{name}-out")
    sizes = [(tmp_path / f"{name}-out" / "model.onnx.data").stat().st_size for name in ("same", "other")]
    assert sizes[1] - sizes[0] >= WHOLE[HEAD].nbytes


def test_transformers_takes_the_last_shard_and_here_the_index_decides_or_nothing(tmp_path: Path):
    stale = {EMBEDDING: np.zeros_like(WHOLE[EMBEDDING])}
    folder = written(tmp_path / "behind", PLAIN, NORMLESS, {NORM: WHOLE[NORM]} | stale)
    assert np.abs(reference(folder)).max() == 0  # the index names the first, and the last has an embedding of zeros
    with pytest.raises(InputError, match=r"both hold model\.embed_tokens\.weight, with different values"):
        built(folder, tmp_path / "none")

    folder = written(tmp_path / "before", PLAIN, {NORM: WHOLE[NORM]} | stale, NORMLESS)
    index = folder / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    places[EMBEDDING] = "model-00002-of-00002.safetensors"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    same(built(folder, tmp_path / "out"), reference(folder))


def test_a_tensor_that_the_index_does_not_name_is_read_from_its_shard(tmp_path: Path):
    folder = written(tmp_path / "m", PLAIN, HEADLESS, {HEAD: WHOLE[HEAD], "extra": np.array(1)})
    index = folder / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    del places[HEAD]
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    same(built(folder, tmp_path / "out"), reference(folder))


def test_what_transformers_makes_up_is_refused(tmp_path: Path):
    for name, lost in {"head": HEAD, "norm": "model.layers.1.input_layernorm.weight"}.items():
        folder = written(tmp_path / name, PLAIN, {k: v for k, v in WHOLE.items() if k != lost})
        _, told = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
        assert told["missing_keys"] == {lost}
        with pytest.raises(InputError, match=f"lacks the tensor {lost}"):
            built(folder, tmp_path / f"{name}-out")


def test_float64_is_rounded_as_torch_rounds(tmp_path: Path):
    odd = [1 + 2**-24, 1 + 3 * 2**-24, 1e-46, 3.4028235677973366e38, -1e300, 2**-149 * 1.5]
    values = np.array(odd + [0.0] * 2, np.float64).reshape(2, 4)
    folder = written(tmp_path / "m", PLAIN, {EMBEDDING: values})
    found = Checkpoint.open({path.name: path for path in folder.iterdir()}).read(EMBEDDING)
    wanted = torch.from_numpy(values).to(torch.float32).numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), wanted.view(np.uint32))


def test_the_helper_writes_what_the_other_tests_write(tmp_path: Path):
    """`WHOLE` in one file is what `save` of the tiny models makes."""
    save(tmp_path / "saved", PLAIN, WHOLE)
    same(reference(written(tmp_path / "m", PLAIN, WHOLE)), reference(tmp_path / "saved"))
