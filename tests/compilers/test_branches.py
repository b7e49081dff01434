"""Weights inside the branches of an If, as longrope has them: kept by every pass, and read from a store's links."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from trtbuild.compilers.onnxruntime.blocks import BlockScheme
from trtbuild.compilers.onnxruntime.optimization import optimize
from trtbuild.compilers.onnxruntime.quantization import quantize_network
from trtbuild.compilers.onnxruntime.tied_embedding import untranspose
from trtbuild.networks.weights.tensors import Network, in_branches, settle

RNG = np.random.default_rng(0)
SMALL, LARGE, EMBEDDING, OUTER = (RNG.standard_normal((rows, 64), np.float32) for rows in (32, 32, 64, 1))


def value(name: str, shape: list[int | str], element: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element, shape)


def branch(name: str, table: np.ndarray) -> onnx.GraphProto:
    """Adds the outer graph's vector to a table of its own."""
    add = helper.make_node("Add", [f"{name}_table", "outer"], [name], name=f"{name}_add")
    return helper.make_graph(
        [add], name, [], [value(name, [32, 64])], [numpy_helper.from_array(table, f"{name}_table")]
    )


@pytest.fixture
def network(tmp_path: Path) -> Network:
    """Tokens [n] -> (their rows of a tied embedding, plus the rows of the small or the large table) @ embedding."""
    nodes = [
        helper.make_node("Transpose", ["head"], ["table"], perm=[1, 0], name="turn"),
        helper.make_node("Gather", ["table", "input_ids"], ["rows"], name="gather"),
        helper.make_node("Shape", ["input_ids"], ["n"]),
        helper.make_node("Greater", ["n", "limit"], ["long"]),
        helper.make_node("Squeeze", ["long"], ["is_long"]),
        helper.make_node(
            "If",
            ["is_long"],
            ["more"],
            then_branch=branch("large", LARGE),
            else_branch=branch("small", SMALL),
            name="choose",
        ),
        helper.make_node("Gather", ["more", "input_ids"], ["more_rows"]),
        helper.make_node("Add", ["rows", "more_rows"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "head"], ["logits"], name="product"),
    ]
    weights = [
        numpy_helper.from_array(np.ascontiguousarray(EMBEDDING.T), "head"),
        numpy_helper.from_array(OUTER[0], "outer"),
        numpy_helper.from_array(np.array([4]), "limit"),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("input_ids", ["n"], TensorProto.INT64)], [value("logits", ["n", 64])], weights
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    path = tmp_path / "given" / "model.onnx"
    path.parent.mkdir()
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    found = Network.open(path)
    assert all(each.data_location == TensorProto.EXTERNAL for each in in_branches(found.model.graph))
    return found


def expected(ids: list[int]) -> np.ndarray:
    table = (LARGE if len(ids) > 4 else SMALL) + OUTER
    return np.asarray((EMBEDDING[ids] + table[ids]) @ EMBEDDING.T)


def logits(path: Path, ids: list[int]) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {"input_ids": np.array(ids)})[0])


def settled(network: Network, tmp_path: Path) -> Path:
    """The network as an engine's folder in a store has it: each file has a second name."""
    out = tmp_path / "engine"
    out.mkdir()
    settle(network, out / "model.onnx")
    for path in list(out.iterdir()):
        os.link(path, tmp_path / f"{path.name}.link")
    return out / "model.onnx"


@pytest.mark.parametrize("ids", [[1, 2, 3], [5, 6, 7, 8, 9, 31]])
@pytest.mark.parametrize("level", ["none", "all"])
def test_both_branches_keep_their_weights(ids: list[int], level: str, network: Network, tmp_path: Path) -> None:
    tied = untranspose(network, tmp_path / "tied.onnx")
    assert tied is not network
    made = tied if level == "none" else optimize(tied.path, tmp_path / "optimized.onnx", level)
    got = logits(settled(made, tmp_path), ids)
    assert np.allclose(got, expected(ids), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ids", [[1, 2, 3], [5, 6, 7, 8, 9, 31]])
def test_a_quantized_network_keeps_them_too(ids: list[int], network: Network, tmp_path: Path) -> None:
    scheme = BlockScheme(8, 32, True, 0)
    made = quantize_network(network, scheme, True, tmp_path / "quantized.onnx", lambda *_: None)
    made = optimize(made.path, tmp_path / "optimized.onnx", "all")
    got = logits(settled(made, tmp_path), ids)
    assert np.abs(got - expected(ids)).max() < 0.02 * np.abs(expected(ids)).max()


def test_the_network_is_the_same_bytes_again(network: Network, tmp_path: Path) -> None:
    sizes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        sizes.append(settle(network, tmp_path / name / "model.onnx"))
    assert sizes[0] == sizes[1]
    for name in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
