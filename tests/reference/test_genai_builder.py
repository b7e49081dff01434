"""network.frontend=genai: an architecture that only onnxruntime-genai's builder knows, down to an answer."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.compilers.support import make_engine, make_network, request
from tests.support import tiny
from trtbuild.compilers.onnxruntime.runtime import Engine, Sampling, generate_text
from trtbuild.errors import BuildError, InputError
from trtbuild.networks.genai import builder
from trtbuild.worker import Reporter

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.reference
one_phi3 = pytest.mark.xdist_group("genai-phi3")
Built = tuple[Path, dict[str, object]]  # a network and its facts


@pytest.fixture(scope="module")
def phi3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Phi-3 of two layers."""
    folder = tmp_path_factory.mktemp("phi3") / "model"
    torch.manual_seed(0)
    config = transformers.Phi3Config(
        vocab_size=tiny.VOCAB,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        original_max_position_embeddings=256,
        bos_token_id=tiny.BOS,
        eos_token_id=tiny.EOS,
        pad_token_id=258,
    )
    transformers.Phi3ForCausalLM(config).save_pretrained(folder)
    tiny.write_tokenizer(folder)
    return folder


def build(folder: Path, out: Path) -> dict[str, object]:
    out.mkdir(parents=True)
    files = {path.name: path for path in folder.iterdir()}
    return builder.run(request({}, files), out, Reporter(io.StringIO()))


@pytest.fixture(scope="module")
def network(phi3: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """What the builder made of it, and the facts. Tests only read it: the builder takes a quarter of a minute."""
    folder = tmp_path_factory.mktemp("network") / "network"
    return folder, build(phi3, folder)


def logits(folder: Path, ids: list[int]) -> np.ndarray:
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    feed = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
    for value in session.get_inputs():
        if value.name.startswith("past_key_values"):
            feed[value.name] = np.zeros((1, 2, 0, 16), np.float32)
    return np.asarray(session.run(["logits"], feed)[0])


@one_phi3
@pytest.mark.parametrize("weights", ["none", "int8", "int4"])
def test_a_phi_3_builds_and_speaks(weights: str, network: Built, tmp_path: Path) -> None:
    folder, facts = network
    assert facts["architecture"] == "Phi3ForCausalLM"
    made = make_engine(folder, tmp_path / "engine", quant__weights=weights)
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    products = sum(node.op_type == "MatMul" for node in graph.node)
    assert made["operators"].get("MatMulNBits", 0) == (0 if weights == "none" else products)
    engine = Engine.load(tmp_path / "engine")
    spoken = generate_text(engine, engine.encode("the sky", raw=True), 8, Sampling(), lambda _: None)
    assert 1 <= len(spoken.tokens) <= 8


@one_phi3
def test_its_logits_are_those_of_transformers(phi3: Path, network: Built, tmp_path: Path) -> None:
    make_engine(network[0], tmp_path / "engine")
    ids = [1, 50, 7, 99, 200]
    with torch.no_grad():
        wanted = transformers.AutoModelForCausalLM.from_pretrained(phi3)(torch.tensor([ids])).logits.numpy()
    assert np.abs(logits(tmp_path / "engine", ids) - wanted).max() < 2e-4


@one_phi3
def test_the_same_bytes_every_time(phi3: Path, network: Built, tmp_path: Path) -> None:
    again = tmp_path / "another" / "deep"
    build(phi3, again)
    assert {path.name for path in again.iterdir()} == {path.name for path in network[0].iterdir()}
    for path in sorted(network[0].iterdir()):
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


@one_phi3
def test_nothing_but_the_network_is_left(network: Built) -> None:
    assert [path.name for path in network[0].parent.iterdir()] == ["network"]


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM"])
def test_our_genai_config_is_the_builders(architecture: str, tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "model", architecture, sliding_window=None)
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    build(model, theirs)
    make_network(model, ours)
    written = [json.loads((folder / "genai_config.json").read_text()) for folder in (ours, theirs)]
    assert written[0] == written[1]


def test_a_failure_leads_with_the_exception_itself(phi3: Path, tmp_path: Path) -> None:
    model = shutil.copytree(phi3, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"rms_norm_eps": "small"}))
    with pytest.raises(BuildError, match=r"model builder failed: (\w+\.)*\w+Error: ") as failure:
        build(model, tmp_path / "network")
    assert failure.value.option == "network.frontend"
    assert failure.value.details


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (("model.gguf",), "is a GGUF file"),
        (("model.safetensors",), "no config.json"),
        (("config.json", "pytorch_model.bin"), "no .safetensors file"),
    ],
)
def test_what_is_no_checkpoint_is_refused(files: tuple[str, ...], words: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=words):
        build(tmp_path, tmp_path / "out")


def test_an_architecture_that_it_gets_wrong_is_refused(tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"architectures": ["OlmoForCausalLM"]}))
    with pytest.raises(InputError, match="RMSNorm where Olmo has LayerNorm"):
        build(model, tmp_path / "network")
