"""Both operator sets compute what a decoder in plain numpy computes, at prefill and at every later step."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest

from tests.networks.graph_runner import Network, write_network
from tests.networks.numpy_decoder import forward
from tests.networks.tiny_models import config, save, save_gguf, weights
from trtbuild.errors import InputError
from trtbuild.networks.config.architectures import parse
from trtbuild.networks.onnx_graph.emit import OPERATORS, emit
from trtbuild.networks.weights.checkpoint import Checkpoint

MODELS = {
    "llama": config(),
    "llama-tied": config(tie_word_embeddings=True),
    "llama-bias": config(attention_bias=True, mlp_bias=True),
    "llama-one-head-per-key": config(num_key_value_heads=4),
    "llama-one-key": config(num_key_value_heads=1),
    "llama-odd-sizes": config(hidden_size=60, head_dim=32, num_attention_heads=3, num_key_value_heads=1),
    "mistral": config("MistralForCausalLM"),
    "mistral-window": config("MistralForCausalLM", sliding_window=5),
    "qwen2": config("Qwen2ForCausalLM", tie_word_embeddings=True),
    "qwen3": config("Qwen3ForCausalLM"),
    "qwen3-bias": config("Qwen3ForCausalLM", attention_bias=True, head_dim=32),
}
TOKENS = np.random.default_rng(3).integers(0, 96, 24)


@pytest.mark.parametrize("operators", OPERATORS)
@pytest.mark.parametrize("name", MODELS)
def test_prefill_and_decode_equal_a_numpy_forward_pass(name: str, operators: str, tmp_path: Path):
    tensors = weights(MODELS[name])
    files = save(tmp_path / "hf", MODELS[name], tensors)
    network = Network(write_network(files, tmp_path / "net", operators), tmp_path / "net", operators)
    wanted = forward(MODELS[name], tensors, TOKENS)

    found = [network.step(TOKENS[None, :15])[0]]
    found += [network.step(TOKENS[None, at : at + 1])[0] for at in range(15, 22)]
    found.append(network.step(TOKENS[None, 22:])[0])  # two tokens at once, after a cache

    assert np.abs(wanted).max() > 1  # the yardstick says something
    np.testing.assert_allclose(np.concatenate(found), wanted, atol=2e-4, rtol=0)


@pytest.mark.parametrize("operators", OPERATORS)
def test_rows_of_a_batch_do_not_mix(operators: str, tmp_path: Path):
    tensors = weights(MODELS["llama"])
    files = save(tmp_path / "hf", MODELS["llama"], tensors)
    network = Network(write_network(files, tmp_path / "net", operators), tmp_path / "net", operators)
    rows = np.stack([TOKENS[:10], TOKENS[10:20]])
    found = network.step(rows)
    for row, logits in zip(rows, found, strict=True):
        np.testing.assert_allclose(logits, forward(MODELS["llama"], tensors, row), atol=2e-4, rtol=0)


@pytest.mark.parametrize("operators", OPERATORS)
def test_half_precision_survives_a_residual_stream_whose_squares_overflow(operators: str, tmp_path: Path):
    tensors = weights(MODELS["llama"])
    tensors["model.embed_tokens.weight"] *= 4000  # squares reach 3e6, float16 ends at 65504
    files = save(tmp_path / "hf", MODELS["llama"], tensors)
    decoder = write_network(files, tmp_path / "net", operators, "float16")
    logits = Network(decoder, tmp_path / "net", operators, "float16").step(TOKENS[None, :8])[0]
    assert logits.dtype == np.float16
    np.testing.assert_allclose(logits, forward(MODELS["llama"], tensors, TOKENS[:8]), atol=0.05, rtol=0.02)


def test_bfloat16_weights_are_the_nearest_that_there_are(tmp_path: Path):
    """Of what float32 holds; a value halfway goes to the even one."""
    tensors = weights(MODELS["llama"])
    tensors["model.norm.weight"][:3] = [1.00390625, 1.01171875, 70000.0]  # 1 + 2^-8, 1 + 3 * 2^-8
    files = save(tmp_path / "hf", MODELS["llama"], tensors)
    decoder = parse(MODELS["llama"])
    path = tmp_path / "model.onnx"
    emit(Checkpoint.open(files), decoder, "standard", np.dtype(ml_dtypes.bfloat16), path, lambda *_: None)
    onnx.checker.check_model(path, full_check=True)
    stored = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    found = onnx.numpy_helper.to_array(stored["model.norm.weight"]).astype(np.float32)
    assert found[:3].tolist() == [1.0, 1.015625, 70144.0]
    wanted = tensors["model.norm.weight"]
    assert (np.abs(found - wanted) <= np.abs(wanted) * 2**-8).all()


def test_a_weight_beyond_float16_is_refused_by_name(tmp_path: Path):
    tensors = weights(MODELS["llama"])
    tensors["model.layers.1.mlp.up_proj.weight"][3, 4] = 1e5
    files = save(tmp_path / "hf", MODELS["llama"], tensors)
    with pytest.raises(InputError, match=r"model\.layers\.1\.mlp\.up_proj\.weight .*float16") as caught:
        write_network(files, tmp_path / "net", "fused", "float16")
    assert caught.value.option == "model.dtype"


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_narrow_weights_are_widened_exactly(kind: str, tmp_path: Path):
    tensors = {name: values.astype(np.float16) for name, values in weights(MODELS["qwen2"]).items()}
    if kind == "BF16":
        tensors = {
            name: (values.astype("<f4").view("<u4") & np.uint32(0xFFFF0000)).view("<f4")
            for name, values in tensors.items()
        }
    wide = save(tmp_path / "wide", MODELS["qwen2"], {k: v.astype(np.float32) for k, v in tensors.items()})
    narrow = save(tmp_path / "narrow", MODELS["qwen2"], tensors, kind, shards=3)
    write_network(wide, tmp_path / "a", "fused")
    write_network(narrow, tmp_path / "b", "fused")
    assert (tmp_path / "a/model.onnx.data").read_bytes() == (tmp_path / "b/model.onnx.data").read_bytes()


@pytest.mark.parametrize("name", ["llama-tied", "llama-bias", "qwen2", "qwen3"])
def test_a_gguf_file_makes_the_same_network_as_the_checkpoint_it_came_from(name: str, tmp_path: Path):
    tensors = weights(MODELS[name])
    hf = save(tmp_path / "hf", MODELS[name], tensors)
    gguf = save_gguf(tmp_path / "model.gguf", MODELS[name], tensors)
    for operators in ("fused", "standard"):
        write_network(hf, tmp_path / operators / "hf", operators)
        write_network(gguf, tmp_path / operators / "gguf", operators)
        for file in ("model.onnx", "model.onnx.data"):
            one, other = (tmp_path / operators / source / file for source in ("hf", "gguf"))
            assert one.read_bytes() == other.read_bytes()


def test_the_graph_uses_only_the_operators_it_promises(tmp_path: Path):
    files = save(tmp_path / "hf", MODELS["llama"], weights(MODELS["llama"]))
    write_network(files, tmp_path / "standard", "standard")
    write_network(files, tmp_path / "fused", "fused")
    onnx.checker.check_model(tmp_path / "standard/model.onnx", full_check=True)
    standard = onnx.load(tmp_path / "standard/model.onnx", load_external_data=False)
    fused = onnx.load(tmp_path / "fused/model.onnx", load_external_data=False)
    assert {node.domain for node in standard.graph.node} == {""}
    write_network(files, tmp_path / "normed", "standard_layer_norm")
    onnx.checker.check_model(tmp_path / "normed/model.onnx", full_check=True)
    normed = [node.op_type for node in onnx.load(tmp_path / "normed/model.onnx", load_external_data=False).graph.node]
    assert (normed.count("LayerNormalization"), normed.count("ReduceMean")) == (2 * 2 + 1, 0)
    kinds = [node.op_type for node in fused.graph.node]
    assert kinds.count("GroupQueryAttention") == 2
    assert kinds.count("SkipSimplifiedLayerNormalization") == 4
    assert kinds.count("MatMul") == 2 * 5 + 1  # q, k and v are one


def test_a_tied_head_is_stored_once(tmp_path: Path):
    settings = MODELS["llama-tied"]
    files = save(tmp_path / "hf", settings, weights(settings))
    for operators in ("fused", "standard"):
        write_network(files, tmp_path / operators, operators)
        graph = onnx.load(tmp_path / operators / "model.onnx", load_external_data=False).graph
        ends = [t.name for t in graph.initializer if t.name.startswith(("lm_head", "model.embed_tokens"))]
        assert len(ends) == 1
