"""Which stored tensor is which, by headers alone: what is understood, what is ignored, and what is refused by name."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gguf
import numpy as np
import pytest
from gguf.quants import dequantize

from tests.networks.tiny_models import config, ggml_name
from trtbuild.errors import InputError
from trtbuild.formats import ggml_types
from trtbuild.networks.config.architectures import parse
from trtbuild.networks.weights import layout, naming
from trtbuild.networks.weights.naming import NamedTensors, TensorPlace

PLAIN, TIED = config(), config(tie_word_embeddings=True)
ONE = "model.safetensors"
Q = "model.layers.0.self_attn.q_proj"
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
Files = dict[str, dict[str, TensorPlace]]


def entry(shape: tuple[int, ...] = (1,), kind: str = "F32") -> TensorPlace:
    return TensorPlace("", "", kind, shape)


def header(settings: dict[str, Any] = PLAIN, **changes: TensorPlace | None) -> dict[str, TensorPlace]:
    """What the file of a whole model says; `changes` add entries, or take them away."""
    whole = {name: entry(shape) for name, shape in layout.expected(parse(settings))}
    return {name: each for name, each in {**whole, **changes}.items() if each is not None}


def settled(files: Files, settings: dict[str, Any] = PLAIN, index: dict[str, str] | None = None) -> NamedTensors:
    """As the command line asks: names, then whether all is there."""
    found = naming.settle(files, index, settings)
    layout.check(found, parse(found.config(settings)))
    return found


def refused(files: Files, *words: str, settings: dict[str, Any] = PLAIN, index: dict[str, str] | None = None) -> None:
    with pytest.raises(InputError) as caught:
        settled(files, settings, index)
    assert caught.value.option == "model.source"
    said = f"{caught.value.message}\n{caught.value.hint}"
    for word in words:
        assert word in said, f"{word!r} is not in: {said}"


def test_plain_names_stand_for_themselves() -> None:
    found = settled({ONE: header()})
    assert {name: place.name for name, place in found.tensors.items()} == {name: name for name in header()}
    assert (found.tied, found.twins, found.ignored, found.rivals) == (False, False, {}, {})
    assert found.config(PLAIN) is PLAIN


@pytest.mark.parametrize(
    ("stored", "name"),
    [
        (f"{Q}.weight", f"{Q}.weight"),
        ("layers.0.self_attn.q_proj.weight", f"{Q}.weight"),
        ("embed_tokens.weight", EMBEDDING),
        ("norm.weight", "model.norm.weight"),
        ("model.lm_head.weight", HEAD),
        (f"model.{Q}.weight", f"{Q}.weight"),
        (f"language_model.{Q}.weight", f"{Q}.weight"),
        ("language_model.lm_head.weight", HEAD),
        ("model.language_model.layers.0.self_attn.q_proj.weight", f"{Q}.weight"),
        ("model.language_model.lm_head.weight", HEAD),
        ("language_model.layers.0.self_attn.q_proj.weight", f"{Q}.weight"),
        (f"_orig_mod.{Q}.weight", f"{Q}.weight"),
        ("model.layers.0._orig_mod.self_attn.q_proj.weight", f"{Q}.weight"),
        (f"module.{Q}.weight", f"{Q}.weight"),
        (f"_orig_mod.module.{Q}.bias", f"{Q}.bias"),
        (f"module._orig_mod.{Q}.weight", f"{Q}.weight"),
        (f"base_model.model.{Q}.base_layer.weight", f"{Q}.weight"),
        (f"base_model.model.{Q}.weight", f"{Q}.weight"),
        ("base_model.model.layers.0.self_attn.q_proj.weight", f"{Q}.weight"),
        ("base_model.model.lm_head.modules_to_save.default.weight", HEAD),
        ("base_model.model.model.embed_tokens.modules_to_save.other.weight", EMBEDDING),
        # None of a decoder's:
        ("model.model.model.norm.weight", "model.model.model.norm.weight"),
        ("model.layers.00.mlp.up_proj.weight", "model.layers.00.mlp.up_proj.weight"),
        ("visual.blocks.0.norm1.weight", "visual.blocks.0.norm1.weight"),
        ("encoder.norm.weight", "encoder.norm.weight"),
        ("score.weight", "score.weight"),
    ],
)
def test_known_prefixes_are_understood(stored: str, name: str) -> None:
    assert naming.canonical(stored) == name


@pytest.mark.parametrize(
    "other",
    [
        "layers.0.self_attn.q_proj.weight",
        f"language_model.{Q}.weight",
        f"_orig_mod.{Q}.weight",
        f"{Q}.base_layer.weight",
        f"{Q}.modules_to_save.default.weight",
    ],
)
def test_two_names_for_one_tensor_are_refused_by_both(other: str) -> None:
    refused({ONE: header(**{other: entry((64, 64))})}, f"holds {Q}.weight twice", f"{Q}.weight in", other)


def test_peft_s_own_copy_counts_and_the_original_does_not() -> None:
    saved, original = "lm_head.modules_to_save.default.weight", "lm_head.original_module.weight"
    both = {HEAD: None, original: entry((96, 64)), saved: entry((96, 64))}
    found = settled({ONE: header(**both)})
    assert found.tensors[HEAD].name == saved
    assert saved in found.ignored[original]
    assert settled({ONE: header(**{HEAD: None, original: entry((96, 64))})}).tensors[HEAD].name == original
    refused({ONE: header(**{original: entry((96, 64))})}, "twice", HEAD, original)


def test_which_head_is_used() -> None:
    whole, headless = header(), header(**{HEAD: None})
    own = settled({ONE: whole}, TIED)
    assert (own.tied, own.twins, own.config(TIED)["tie_word_embeddings"]) == (False, True, False)
    shared = settled({ONE: headless}, TIED)
    assert (shared.tied, shared.twins) == (True, False)
    assert shared.config(TIED) is TIED
    alone = settled({ONE: header(**{EMBEDDING: None})}, TIED)
    assert (alone.tied, alone.tensors[EMBEDDING].name) == (True, HEAD)
    refused({ONE: headless}, "lacks the tensor lm_head.weight", "tie_word_embeddings", "AutoModel")
    refused({ONE: header(**{EMBEDDING: None})}, f"lacks the tensor {EMBEDDING}")
    refused({ONE: header(**{EMBEDDING: None, HEAD: None})}, f"lacks the tensor {EMBEDDING}", settings=TIED)
    refused({ONE: header(**{HEAD: entry((95, 64))})}, "shape [95, 64]", settings=TIED)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.0.self_attn.rotary_emb.inv_freq", "F32"),
        ("model.rotary_emb.inv_freq", "BF16"),
        ("model.layers.0.self_attn.rotary_emb.cos_cached", "F16"),
        ("model.layers.0.self_attn.bias", "BOOL"),
        ("model.layers.0.attn.masked_bias", "F32"),
        ("model.embeddings.position_ids", "I64"),
        ("model.num_steps", "I64"),
        ("model.layers.0.self_attn._extra_state", "U8"),
    ],
)
def test_buffers_are_ignored_with_the_reason(name: str, kind: str) -> None:
    found = settled({ONE: header(**{name: entry((3,), kind)})})
    assert list(found.ignored) == [name]
    assert len(found.ignored[name]) > 10
    assert name not in found.tensors


@pytest.mark.parametrize("kind", ["F64", "F32", "F16", "BF16"])
def test_these_types_are_read(kind: str) -> None:
    assert settled({ONE: header(**{f"{Q}.weight": entry((64, 64), kind)})}).tensors[f"{Q}.weight"].kind == kind


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        (f"{Q}.weight", "F8_E4M3", ["as F8_E4M3", "FP8"]),
        (f"{Q}.weight", "I8", ["as I8", "quantized"]),
        (f"{Q}.weight", "U8", ["as U8", "quantized"]),
        (f"{Q}.weight", "F4", ["as F4", "4 or 6 bits"]),
        (f"{Q}.qweight", "I32", ["qweight", "GPTQ or AWQ"]),
        (f"{Q}.g_idx", "I32", ["g_idx", "GPTQ"]),
        (f"{Q}.weight.absmax", "F32", ["absmax", "bitsandbytes"]),
        (f"{Q}.weight.quant_state.bitsandbytes__nf4", "U8", ["bitsandbytes"]),
        (f"{Q}.SCB", "F32", ["bitsandbytes"]),
        (f"{Q}.weight_packed", "I32", ["compressed-tensors"]),
        (f"{Q}.weight_scale_inv", "F32", ["FP8 with a scale a block"]),
        (f"{Q}.weight_scale", "F32", ["weight_scale", "with scales"]),
        ("model.layers.0.self_attn.k_scale", "F32", ["k_scale", "with scales"]),
        ("model.layers.0.mlp.experts.gate_up_proj_blocks", "U8", ["MXFP4"]),
        (f"{Q}.biases", "F16", ["MLX"]),
    ],
)
def test_quantized_checkpoints_are_named(name: str, kind: str, words: list[str]) -> None:
    refused({ONE: header(**{name: entry((64, 64), kind)})}, name, *words, "was quantized from")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"base_model.model.{Q}.lora_A.weight", ["adapter", "merge"]),
        (f"{Q}.lora_B.default.weight", ["adapter", "merge_and_unload"]),
        ("model.layers.2.self_attn.q_proj.weight", ["num_hidden_layers=2", "layer 2"]),
        ("model.layers.2.eh_proj.weight", ["num_hidden_layers=2"]),
        ("score.weight", ["scores or classifies"]),
        ("vision_tower.blocks.0.weight", ["vision"]),
        ("model.visual.patch_embed.weight", ["vision"]),
        ("model.layers.0.mlp.experts.0.up_proj.weight", ["mixture of experts"]),
        ("mtp.layers.0.weight", ["several tokens ahead"]),
        (f"{Q}.bias", ["does not use"]),
        ("lm_head.bias", ["does not use"]),
        ("strange.weight", ["holds strange.weight", "does not use"]),
    ],
)
def test_what_would_be_left_out_is_said_for_what_it_is(name: str, words: list[str]) -> None:
    refused({ONE: header(**{name: entry((4, 4))})}, name, *words)


def test_the_index_decides_which_shard_holds_a_tensor() -> None:
    first, second = {EMBEDDING: entry((96, 64))}, header()
    files = {"a.safetensors": first, "b.safetensors": second}
    index = dict.fromkeys(second, "b.safetensors") | {EMBEDDING: "a.safetensors"}
    found = settled(files, index=index)
    assert found.tensors[EMBEDDING].file == "a.safetensors"
    assert found.rivals == {EMBEDDING: TensorPlace("b.safetensors", EMBEDDING, "F32", (96, 64))}
    # What transformers would take as well needs no comparison.
    assert settled(files, index=dict.fromkeys(second, "b.safetensors")).rivals == {}
    # And what the index does not name is where transformers finds it.
    del index[EMBEDDING]
    assert settled(files, index=index).tensors[EMBEDDING].file == "b.safetensors"
    refused(files, "names c.safetensors", index=index | {"x": "c.safetensors"})
    refused(files, "says that it holds x, and it does not", index=index | {"x": "a.safetensors"})
    first[EMBEDDING] = entry((96, 64), "F16")
    refused(files, "a.safetensors and b.safetensors", index=index | {EMBEDDING: "a.safetensors"})


def test_a_gguf_is_settled_by_ggml_s_names() -> None:
    file = {ggml_name(name): each for name, each in header().items()}
    found = settled({"model.gguf": file | {"rope_freqs.weight": entry((8,))}})
    assert found.tensors[f"{Q}.weight"].name == "blk.0.attn_q.weight"
    assert "rope_freqs.weight" not in found.tensors
    refused({"model.gguf": file | {"blk.0.attn_sinks.weight": entry()}}, "blk.0.attn_sinks.weight")
    refused({"model.gguf": file | {"blk.0.attn_q.weight": entry((64, 64), "I64")}}, "as I64")
    refused({"model.gguf": file | {"blk.0.attn_q.weight.lora_a": entry((64, 64))}}, "adapter", "llama-export-lora")
    refused({"a.gguf": file, "b.gguf": {"output.weight": entry((96, 64))}}, "output.weight twice", "b.gguf")


def test_the_types_of_ggml_are_those_that_gguf_knows_and_reads() -> None:
    for kind in gguf.GGMLQuantizationType:
        assert ggml_types.NAMES[int(kind)] == kind.name
        assert ggml_types.BLOCKS[kind.name] == gguf.GGML_QUANT_SIZES[kind]
        try:
            dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except NotImplementedError:
            assert ggml_types.unreadable(kind.name)
        else:
            assert not ggml_types.unreadable(kind.name)
    assert ggml_types.unreadable("type 99")


def test_a_plan_needs_no_numpy() -> None:
    code = (
        "import sys, trtbuild.networks.weights.layout, trtbuild.networks.weights.naming, trtbuild.formats.safetensors; "
        "print([name for name in ('numpy', 'gguf', 'torch', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
