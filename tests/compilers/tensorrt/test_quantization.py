"""Small weights for TensorRT: what is stored, what it costs, and that ONNX Runtime reads the same numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from tests.compilers.tensorrt.support import network
from tests.networks.graph_runner import Network as Runner
from tests.networks.tiny_models import config
from trtbuild.compilers.tensorrt import quantization
from trtbuild.compilers.tensorrt.quantization import quantize_network
from trtbuild.errors import BuildError, InputError
from trtbuild.networks.weights.tensors import Network

SETTINGS = config("Qwen3ForCausalLM", tie_word_embeddings=True)
GROUPS = {"int8": None, "int4": 16, "fp8": None}
Q = "model.layers.1.mlp.up_proj.MatMul.weight"


def stored(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def exact(folder: Path) -> np.ndarray:
    return stored(folder / "net" / "model.onnx")[Q].astype(np.float64)


def test_int8_is_the_nearest_of_255_steps_of_each_column(tmp_path: Path) -> None:
    _, path = network(tmp_path, SETTINGS, "int8")
    found, wanted = stored(path), exact(tmp_path)
    integers, scale = found[f"{Q}.quantized"], found[f"{Q}.scale"]
    assert integers.dtype == np.int8 and scale.shape == (wanted.shape[1],)
    np.testing.assert_allclose(scale, np.abs(wanted).max(0) / 127, rtol=1e-6)
    assert np.abs(integers * scale.astype(np.float64) - wanted).max() <= scale.max() * 0.5001
    assert np.abs(integers.astype(int)).max() == 127


def test_int4_is_the_nearest_of_15_steps_of_each_group(tmp_path: Path) -> None:
    _, path = network(tmp_path, SETTINGS, "int4", group=16)
    found, wanted = stored(path), exact(tmp_path)
    integers, scale = found[f"{Q}.quantized"].astype(int), found[f"{Q}.scale"].astype(np.float64)
    assert scale.shape == (wanted.shape[0] // 16, wanted.shape[1])
    spread = np.repeat(scale, 16, axis=0)
    assert np.abs(integers).max() == 7
    assert (np.abs(integers * spread - wanted) <= spread * 0.5001).all()


def test_fp8_is_the_nearest_that_e4m3_has_by_column(tmp_path: Path) -> None:
    """Three bits of mantissa: within a sixteenth of the value, or half a step of the smallest numbers (2^-9)."""
    _, path = network(tmp_path, SETTINGS, "fp8")
    found, wanted = stored(path), exact(tmp_path)
    numbers, scale = found[f"{Q}.quantized"], found[f"{Q}.scale"].astype(np.float64)
    assert numbers.dtype == ml_dtypes.float8_e4m3fn and scale.shape == (wanted.shape[1],)
    np.testing.assert_allclose(scale, np.abs(wanted).max(0) / 448, rtol=1e-6)
    values = numbers.astype(np.float64)
    assert np.abs(values).max() == 448
    assert (np.abs(values * scale - wanted) <= np.maximum(np.abs(wanted) / 16, scale * 2**-10) * 1.0001).all()


@pytest.mark.parametrize("scheme", ["int8", "int4", "fp8"])
def test_the_graph_computes_with_the_stored_numbers(scheme: str, tmp_path: Path) -> None:
    """The quantized graph equals the plain one with each matrix replaced by what its integers stand for."""
    decoder, path = network(tmp_path, SETTINGS, scheme)
    found = stored(path)
    plain = onnx.load(tmp_path / "net" / "model.onnx")
    for tensor in plain.graph.initializer:
        if (integers := found.get(f"{tensor.name}.quantized")) is not None:
            scale = found[f"{tensor.name}.scale"]
            scale = np.repeat(scale, 16, axis=0) if scheme == "int4" else scale
            tensor.CopyFrom(numpy_helper.from_array(integers.astype(np.float32) * scale, tensor.name))
    (tmp_path / "wanted").mkdir()
    onnx.save(plain, tmp_path / "wanted" / "model.onnx")
    ids = np.arange(20)[None]
    wanted = Runner(decoder, tmp_path / "wanted", "standard").step(ids)
    got = Runner(decoder, path.parent, "standard", as_written=True).step(ids)
    np.testing.assert_allclose(got, wanted, atol=1e-3, rtol=0)
    exact_logits = Runner(decoder, tmp_path / "net", "standard").step(ids)
    assert np.abs(wanted - exact_logits).max() > 0.01  # and it is not the plain graph that ran


def test_scales_have_the_graphs_type(tmp_path: Path) -> None:
    _, path = network(tmp_path, SETTINGS, "int8", "float16")
    assert stored(path)[f"{Q}.scale"].dtype == np.float16


def test_embedding_head_norms_and_tables_stay(tmp_path: Path) -> None:
    untied = config("LlamaForCausalLM")
    _, path = network(tmp_path, untied, "int4")
    found, before = stored(path), stored(tmp_path / "net" / "model.onnx")
    kept = [name for name in before if name in found and name.startswith(("lm_head", "model.embed", "cos_cache"))]
    assert {"lm_head.MatMul.weight", "model.embed_tokens.weight", "cos_cache"} <= set(kept)
    for name in kept:
        np.testing.assert_array_equal(found[name], before[name])
    integers = [name for name in found if name.endswith(".quantized")]
    assert len(integers) == 7 * untied["num_hidden_layers"]


def test_slices_joined_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network(tmp_path, SETTINGS)
    source = Network.open(tmp_path / "net" / "model.onnx")
    made = {}
    for size in (quantization.SLICE, 5000):
        monkeypatch.setattr(quantization, "SLICE", size)  # a number of bytes held at once
        for scheme, group in GROUPS.items():
            path = tmp_path / f"{size}-{scheme}.onnx"
            quantize_network(source, scheme, group, path, lambda *_: None)
            made[size, scheme] = path.with_name(path.name + ".data").read_bytes()
    for scheme in GROUPS:
        assert made[quantization.SLICE, scheme] == made[32 << 20, scheme]


def test_zeros_and_values_below_the_type_do_not_divide_by_zero(tmp_path: Path) -> None:
    _, path = network(tmp_path, SETTINGS)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == Q:
            values = numpy_helper.to_array(tensor).copy()
            values[:, 0], values[:, 1] = 0, 1e-40
            tensor.CopyFrom(numpy_helper.from_array(values, Q))
    onnx.save(model, tmp_path / "zeros.onnx")
    for scheme, group in GROUPS.items():
        out = tmp_path / f"out-{scheme}.onnx"
        quantize_network(Network.open(tmp_path / "zeros.onnx"), scheme, group, out, lambda *_: None)
        found = stored(out)
        assert (found[f"{Q}.scale"] > 0).all()
        assert np.abs(found[f"{Q}.quantized"].astype(np.float32)[:, :2]).max() < 0.01  # of fp8, 1e-40 is some


def test_the_result_is_valid_onnx_of_an_opset_with_int4(tmp_path: Path) -> None:
    for scheme in GROUPS:
        _, path = network(tmp_path / scheme, SETTINGS, scheme)
        onnx.checker.check_model(path, full_check=True)
        assert {(each.domain, each.version) for each in onnx.load(path).opset_import} == {("", 21)}
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_a_group_that_does_not_divide_is_refused_by_the_matrix_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"64 does not divide the 96 rows of .*down_proj") as caught:
        network(tmp_path, SETTINGS, "int4", group=64)
    assert caught.value.option == "quant.group_size"


def test_a_network_without_linear_maps_is_no_network(tmp_path: Path) -> None:
    graph: Any = onnx.helper.make_graph([], "empty", [], [], [])
    onnx.save(onnx.helper.make_model(graph), tmp_path / "empty.onnx")
    with pytest.raises(BuildError, match="nothing to quantize"):
        quantize_network(Network.open(tmp_path / "empty.onnx"), "int8", None, tmp_path / "out.onnx", lambda *_: None)
