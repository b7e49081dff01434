"""Weight-only quantization: right values, same bytes every time, and little memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.compilers.support import dequantize, make_engine, make_network
from tests.support import tiny
from trtbuild.compilers.onnxruntime.blocks import BlockScheme, quantize, quantize_slices
from trtbuild.compilers.onnxruntime.quantization import quantize_network
from trtbuild.errors import BuildError, InputError
from trtbuild.networks.weights.tensors import Network


@pytest.fixture(scope="module")
def network(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_network(tiny_llama, tmp_path_factory.mktemp("network") / "out")


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("untied")
    return make_network(tiny.write_model(root / "model", tie_word_embeddings=False), root / "out")


def logits(folder: Path, ids: list[int]) -> np.ndarray:
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    feed = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
    for value in session.get_inputs():
        if value.name.startswith("past_key_values"):
            feed[value.name] = np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32)
    return np.asarray(session.run(["logits"], feed)[0])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [16, 32, 128])
@pytest.mark.parametrize("k", [96, 100])
def test_values_are_within_half_a_step(bits: int, symmetric: bool, group_size: int, k: int) -> None:
    values = np.random.default_rng(0).standard_normal((k, 40), dtype=np.float32)
    made = quantize(values, BlockScheme(bits, group_size, symmetric, 4))
    found = dequantize(made.packed, made.scales, made.zeros, bits)[:, :k].T
    step = np.abs(np.repeat(made.scales, group_size, axis=1))[:, :k].T
    # a symmetric block reaches one step less far on the side away from its largest value: clipped there
    blocks = np.pad(values, ((0, -k % group_size), (0, 0))).reshape(-1, group_size, 40)
    clipped = np.abs(values) >= step * (2 ** (bits - 1) - 1) if symmetric else np.zeros_like(values, bool)
    assert len(blocks) == made.scales.shape[1]
    assert (np.abs(found - values)[~clipped] <= 0.5001 * step[~clipped]).all()
    assert (np.abs(found - values) <= 1.0001 * step).all()


def test_slices_joined_are_the_whole() -> None:
    values = np.random.default_rng(1).standard_normal((64, 50), dtype=np.float32)
    scheme = BlockScheme(4, 32, False, 4)
    parts = list(quantize_slices(64, 50, lambda a, b: np.ascontiguousarray(values[:, a:b]), scheme, 64 * 4 * 7))
    whole = quantize(values, scheme)
    assert len(parts) == 8
    assert np.array_equal(np.concatenate([part.packed for part in parts]), whole.packed)
    assert np.array_equal(np.concatenate([part.scales for part in parts]), whole.scales)


@pytest.mark.parametrize("source", ["network", "untied"])
@pytest.mark.parametrize("weights", ["int8", "int4"])
@pytest.mark.parametrize("embedding", [True, False])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", [32, 128])  # 128 pads the hidden size of 64
def test_the_engine_computes_nearly_what_the_network_does(
    source: str,
    weights: str,
    embedding: bool,
    symmetric: bool,
    group_size: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    folder = request.getfixturevalue(source)
    facts = make_engine(
        folder,
        tmp_path / "engine",
        quant__weights=weights,
        quant__embedding=embedding,
        quant__symmetric=symmetric,
        quant__group_size=group_size,
        compiler__accuracy_level=1,
    )
    ids = list(range(1, 60, 3))
    wanted, found = logits(folder, ids), logits(tmp_path / "engine", ids)
    likeness = np.corrcoef(wanted.ravel(), found.ravel())[0, 1]
    assert likeness > (0.999 if weights == "int8" else 0.9), likeness
    assert facts["operators"]["MatMulNBits"] == 11  # 2 layers of 5, and the head
    assert ("GatherBlockQuantized" in facts["operators"]) == embedding
    assert facts["operators"].get("MatMul", 0) == 0


@pytest.mark.parametrize("weights", ["none", "int8", "int4"])
def test_a_tied_matrix_is_stored_once(weights: str, network: Path, untied: Path, tmp_path: Path) -> None:
    tied = make_engine(network, tmp_path / "tied", quant__weights=weights)["bytes"]
    apart = make_engine(untied, tmp_path / "apart", quant__weights=weights)["bytes"]
    per_value = {"none": 4, "int8": 1 + 4 / 32, "int4": 0.5 + 4 / 32}[weights]
    assert apart - tied > 0.9 * per_value * tiny.VOCAB * 64


@pytest.mark.parametrize("optimization", ["none", "basic", "extended", "all"])
def test_an_unquantized_engine_computes_what_the_network_does(
    optimization: str, network: Path, untied: Path, tmp_path: Path
) -> None:
    ids = [1, 5, 9, 200, 42]
    for folder in (network, untied):
        out = tmp_path / folder.parent.name
        make_engine(folder, out, compiler__optimization=optimization)
        assert np.abs(logits(out, ids) - logits(folder, ids)).max() < 1e-5


@pytest.mark.parametrize("weights", ["none", "int4"])
def test_bytes_repeat_in_another_process_and_place(weights: str, network: Path, tmp_path: Path) -> None:
    first = tmp_path / "first"
    make_engine(network, first, quant__weights=weights)
    code = (
        "import sys; from pathlib import Path; from tests.compilers.support import make_engine;"
        f"make_engine(Path(sys.argv[1]), Path(sys.argv[2]), quant__weights={weights!r})"
    )
    for threads in ("1", "2"):
        out = tmp_path / f"elsewhere-{threads}" / "deep" / "engine"
        path = os.pathsep.join(str(Path(part).absolute()) for part in ["", *sys.path] if Path(part).is_dir())
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": path, "HOME": str(tmp_path)}
        out.parent.mkdir(parents=True)
        command = [sys.executable, "-c", code, str(network), str(out)]
        subprocess.run(command, check=True, cwd=out.parent, env=environment)
        assert files(out) == files(first)


def test_the_rest_of_the_folder_comes_along(network: Path, tmp_path: Path) -> None:
    make_engine(network, tmp_path / "engine")
    made = files(tmp_path / "engine")
    wanted = {"model.onnx", "model.onnx.data", "genai_config.json", "config.json", "tokenizer.json"}
    assert set(made) == wanted | {"tokenizer_config.json"}
    assert made["tokenizer.json"] == (network / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("quant__weights", "fp8"),
        ("quant__group_size", 48),
        ("compiler__accuracy_level", 5),
        ("compiler__optimization", "most"),
        ("profile__max_seq_len", 257),
        ("profile__max_seq_len", 0),
    ],
)
def test_an_unknown_option_is_named(option: str, value: object, network: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as failure:
        make_engine(network, tmp_path / "engine", **({"quant__weights": "int4"} | {option: value}))
    assert failure.value.option == option.replace("__", ".")
    assert str(value) in failure.value.message


def test_a_truncated_network_is_refused(network: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for name, content in files(network).items():
        (broken / name).write_bytes(content[:-5000] if name.endswith(".data") else content)
    with pytest.raises(BuildError, match=r"model\.onnx\.data ends within the tensor"):
        make_engine(broken, tmp_path / "engine", quant__weights="int4")


def test_a_graph_may_not_read_outside_its_folder(network: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name, content in files(network).items():
        (outside / name).write_bytes(content)
    model = onnx.load(outside / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../secret"
    (outside / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BuildError, match="not a file beside the graph"):
        make_engine(outside, tmp_path / "engine", quant__weights="int4")


def test_a_network_without_weights_is_refused(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [value], [result])
    source = Network(helper.make_model(graph), tmp_path / "model.onnx")
    with pytest.raises(BuildError, match="nothing to quantize"):
        quantize_network(source, BlockScheme(4, 32, True, 4), True, tmp_path / "q.onnx", lambda *_: None)


_MEASURE = """
import resource, sys
from pathlib import Path
from tests.compilers.support import make_engine
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
make_engine(Path(sys.argv[1]), Path(sys.argv[2]), quant__weights="int4")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_peak_memory_is_far_below_the_model(tmp_path: Path) -> None:
    """A network of 400 MB, in one layer after another of 16 MB, is quantized in a fraction of that."""
    size, layers = 2048, 24
    source = tmp_path / "network"
    source.mkdir()
    nodes, tensors, rng = [], [], np.random.default_rng(0)
    with (source / "model.onnx.data").open("wb") as stream:
        for layer in range(layers):
            tensor = TensorProto(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=[size, size])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (
                ("location", "model.onnx.data"),
                ("offset", stream.tell()),
                ("length", size * size * 4),
            ):
                tensor.external_data.add(key=key, value=str(value))
            stream.write(rng.standard_normal((size, size), dtype=np.float32).tobytes())
            tensors.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"x{layer}", f"w{layer}"], [f"x{layer + 1}"], name=f"m{layer}"))
    ends = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, ["n", size]) for i in (0, layers)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    (source / "model.onnx").write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    )
    (source / "genai_config.json").write_text('{"model": {"context_length": 8}, "search": {}}')
    command = [sys.executable, "-c", _MEASURE, str(source), str(tmp_path / "engine")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part or "." for part in sys.path)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert int(done.stdout) * 1024 < 200e6, f"{int(done.stdout) / 1024:.0f} MB"


def test_numbers_are_taken_from_inside_the_graph_too(network: Path, tmp_path: Path) -> None:
    """A network whose weights lie in model.onnx itself gives the same engine."""
    inside = tmp_path / "inside"
    inside.mkdir()
    for name, content in files(network).items():
        if not name.startswith("model.onnx"):
            (inside / name).write_bytes(content)
    model = onnx.load(network / "model.onnx")
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name))
    onnx.save(model, inside / "model.onnx")
    for weights in ("none", "int4"):
        make_engine(network, tmp_path / f"a-{weights}", quant__weights=weights)
        make_engine(inside, tmp_path / f"b-{weights}", quant__weights=weights)
        assert np.array_equal(
            logits(tmp_path / f"a-{weights}", [1, 2, 3]), logits(tmp_path / f"b-{weights}", [1, 2, 3])
        )
