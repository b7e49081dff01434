"""compiler=modelopt for real: ModelOpt quantizes SmolLM2 and tiny models, and what it wrote is proved."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.networks import tiny_models
from tests.support import tiny
from tests.support.cli import Done, Project
from trtbuild.compilers.aot_inductor import package_loader, weights
from trtbuild.compilers.aot_inductor import structure as structures
from trtbuild.compilers.modelopt import check, exported, loss, texts, verify_export
from trtbuild.errors import InputError
from trtbuild.facts.recipe import SCHEMES
from trtbuild.networks.config.architectures import parse
from trtbuild.worker import Reporter, StepRequest

pytest.importorskip("modelopt")
quantizing = pytest.importorskip("trtbuild.compilers.modelopt.modelopt_run")

torch = pytest.importorskip("torch")
aot = pytest.importorskip("trtbuild.compilers.aot_inductor.module")

pytestmark = pytest.mark.reference

#: One thread: several tests run at a time, and more would wait for each other.
MODELOPT = ("compiler=modelopt", "executor=process", "executor.threads=1", "target=cpu")
#: Few and short: sixteen-bit floats are slow on a CPU.
SHORT = ("compiler.calib_size=3", "compiler.calib_max_length=48")
LAYER = "model.layers.0."


def ok(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


def header(folder: Path) -> dict[str, tuple[str, list[int]]]:
    with (folder / "model.safetensors").open("rb") as stream:
        found = json.loads(stream.read(struct.unpack("<Q", stream.read(8))[0]))
    found.pop("__metadata__", None)
    return {name: (each["dtype"], each["shape"]) for name, each in found.items()}


#: scheme -> of a linear map [576, 1536] each tensor: type and shape
SMOLLM2: dict[str, dict[str, tuple[str, list[int]]]] = {
    "int8": {"weight": ("I8", [576, 1536]), "weight_scale": ("F32", [576])},
    "fp8": {"weight": ("F8_E4M3", [576, 1536]), "weight_scale": ("F32", []), "input_scale": ("F32", [])},
    "fp8_kv": {"weight": ("F8_E4M3", [576, 1536]), "weight_scale": ("F32", []), "input_scale": ("F32", [])},
    "int4_awq": {
        "weight": ("U8", [288, 1536]),
        "weight_scale": ("F32", [576, 24]),
        "pre_quant_scale": ("F32", [1536]),
    },
    "nvfp4": {
        "weight": ("U8", [576, 768]),
        "weight_scale": ("F8_E4M3", [576, 96]),
        "weight_scale_2": ("F32", []),
        "input_scale": ("F32", []),
    },
}


def made(source: Path, out: Path, quant: str, **options: Any) -> dict[str, Any]:
    """The step's facts: in this process, which has imported ModelOpt, where a worker takes a quarter of a minute."""
    parts = next(parts for parts, name in SCHEMES.items() if name == quant)
    facts = dict(zip(("weights", "activations", "method", "kv_cache"), parts, strict=True))
    given = {f"quant.{name}": value for name, value in facts.items()} | {
        "model.dtype": options.pop("dtype", "bfloat16"),
        "quant.group_size": options.pop("group_size", None),
        "target.kind": "cpu",
        "compiler.threads": 1,
        "compiler.calib_batch_size": 1,
        "compiler.calib_size": 3,
        "compiler.calib_max_length": 48,
        **{f"compiler.{name}": value for name, value in options.items() if name != "dataset"},
    }
    inputs = {"unpack": source} | ({"calib_dataset": options["dataset"]} if "dataset" in options else {})
    out.mkdir(parents=True)
    request = StepRequest("checkpoint", given, {}, inputs, {}, None)
    facts = quantizing.run(request, out, Reporter(io.StringIO()))
    check.run(StepRequest("check", {}, {}, {"engine": out}, {}, None), out, Reporter(io.StringIO()))
    print(f"{quant} of {source.name}: {facts}")
    return facts


def digest(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


# SmolLM2: two by the command line, and the others in this process, from what the first one unpacked.

one_smollm2 = pytest.mark.xdist_group("modelopt-smollm2")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("modelopt"))
    yield project
    shutil.rmtree(project.store, ignore_errors=True)


def holds(folder: Path, quant: str, facts: Mapping[str, Any]) -> None:
    """Names, types and shapes of a linear map, what the model makes of a text, and the files for a server."""
    found, module = header(folder), f"{LAYER}mlp.down_proj."
    tensors = {name.removeprefix(module): each for name, each in found.items() if name.startswith(module)}
    assert tensors == SMOLLM2[quant]
    assert (f"{LAYER}self_attn.k_proj.k_scale" in found) == (quant == "fp8_kv")
    loss = facts["loss"]
    assert 2.0 < loss["original"] < 2.6  # of SmolLM2-135M on the first articles of a constitution
    assert loss["quantized"] - loss["original"] < {"int8": 0.05, "fp8": 0.3, "fp8_kv": 0.3}.get(quant, 1.0)
    assert "<|im_start|>" in json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    assert (folder / "tokenizer.json").is_file()


@one_smollm2
@pytest.mark.parametrize("quant", ["int8", "fp8_kv"])
def test_smollm2_is_built_proved_and_then_a_hit(smollm2: Project, quant: str) -> None:
    words = ("model=smollm2", f"quant={quant}", *MODELOPT, *SHORT, "output=json")
    done = ok(smollm2.trtbuild(*words, timeout=900)).json
    assert done["outcome"] == "built"
    print(f"{quant}: {done['loss']}")
    holds(Path(done["path"]), quant, done)
    again = ok(smollm2.trtbuild(*words)).json
    assert again["outcome"] == "hit-local"
    assert again["loss"] == done["loss"]


@one_smollm2
@pytest.mark.parametrize(
    ("quant", "options"),
    [
        ("fp8", {}),
        ("nvfp4", {}),
        ("int4_awq", {"calib_size": 1, "calib_max_length": 12, "group_size": 64, "dtype": "float32"}),
    ],
)
def test_smollm2_in_the_other_schemes(smollm2: Project, quant: str, options: dict[str, Any], tmp_path: Path) -> None:
    words = ("model=smollm2", "quant=int8", *MODELOPT, "until=unpack", "output=json")
    dtype = f"model.dtype={options.get('dtype', 'bfloat16')}"
    source = Path(ok(smollm2.trtbuild(*words, dtype)).json["path"])
    holds(tmp_path / "out", quant, made(source, tmp_path / "out", quant, **options))


# Tiny models: the same bytes, every architecture, every scheme.


def tiny_model(folder: Path, architecture: str = "LlamaForCausalLM", **changes: Any) -> Path:
    settings = tiny_models.config(architecture, vocab_size=tiny.VOCAB, **changes)
    tiny_models.save(folder, settings, tiny_models.weights(settings))
    tiny.write_tokenizer(folder)
    return folder


@pytest.mark.parametrize("quant", ["int8", "fp8", "int4_awq"])
def test_the_same_bytes_again_in_another_place(quant: str, tmp_path: Path) -> None:
    """Of scales that are measured: with the same threads and instructions."""
    source = tiny_model(tmp_path / "model")
    places = [tmp_path / "one", tmp_path / "another" / "with-a-longer-name"]
    for place in places:
        made(source, place, quant, group_size=16 if "awq" in quant else None)
        assert str(tmp_path).encode() not in (place / "model.safetensors").read_bytes()
        assert str(tmp_path) not in "".join(path.read_text() for path in place.glob("*.json"))
    assert digest(places[0]) == digest(places[1])


@pytest.mark.parametrize("architecture", ["MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"])
def test_other_architectures_are_proved_too(architecture: str, tmp_path: Path) -> None:
    """AWQ moves scales into norms: the reader undoes it, whatever else a layer has."""
    source = tiny_model(tmp_path / "model", architecture)
    made(source, tmp_path / "fp8", "fp8_kv")
    made(source, tmp_path / "awq", "int4_awq", group_size=16)


@pytest.mark.parametrize("quant", sorted(set(SCHEMES.values()) - {"int4", "int4_gptq", "fp8_weights"}))
def test_every_scheme_of_a_model_without_groups_of_heads(quant: str, tmp_path: Path) -> None:
    """With as many heads of keys as of queries ModelOpt may move more scales than otherwise."""
    source = tiny_model(tmp_path / "model", num_key_value_heads=4, tie_word_embeddings=False)
    text = tmp_path / "text.jsonl"
    text.write_text("".join(json.dumps({"text": f"a line of text, {at} of many"}) + "\n" for at in range(40)))
    group = 16 if quant in ("int4_awq", "w4a8_awq") else None
    facts = made(source, tmp_path / "out", quant, dataset=text, calib_size=16, calib_batch_size=4, group_size=group)
    assert facts["calibration"] is None or facts["calibration"]["samples"] == 16


@pytest.mark.parametrize("quant", ["int8", "int8_sq", "fp8_kv", "int4_awq", "nvfp4"])
def test_maps_are_left_as_they_are(quant: str, tmp_path: Path) -> None:
    """Proved number by number, and named for servers in both configs."""
    source = tiny_model(tmp_path / "model", num_hidden_layers=3)
    patterns = ["model.layers.0.*", "*.down_proj"]
    out, group = tmp_path / "out", 16 if quant == "int4_awq" else None
    made(source, out, quant, group_size=group, exclude_modules=patterns)
    kinds = {name: kind for name, (kind, _) in header(out).items() if name.endswith("_proj.weight")}
    left = {name for name in kinds if ".layers.0." in name or ".down_proj." in name}
    assert {kinds[name] for name in left} == {"BF16"}
    assert "BF16" not in {kinds[name] for name in kinds.keys() - left}


def test_an_engine_of_pytorch_s_computes_with_the_checkpoint_s_numbers(tmp_path: Path) -> None:
    """compiler=aot_inductor quant=fp8: its module, in float32, beside the decoder in numpy that rounds as FP8."""
    source = tiny_model(tmp_path / "model", num_hidden_layers=3)
    made(source, tmp_path / "fp8", "fp8", dtype="float32")
    config = json.loads((source / "config.json").read_text())
    decoder = parse(config)
    structure, scheme = (
        structures.Structure.of(decoder),
        structures.WeightScheme("fp8", None, False, "float32"),
    )
    facts = {**structure.facts(), "quant.weights": "fp8", "model.dtype": "float32"}
    model = {path.name: path for path in source.iterdir()}
    (tmp_path / "weights").mkdir()
    request = StepRequest("weights", facts, model, {"checkpoint": tmp_path / "fp8"}, {}, None)
    weights.run(request, tmp_path / "weights", Reporter(io.StringIO()))
    module = aot.DecoderModule(structure, scheme, "cpu").eval()
    module.load_state_dict(package_loader.read(tmp_path / "weights" / "model.safetensors", "cpu"))
    tokens = list(range(3, 43))
    caches = [[torch.zeros(decoder.kv_heads, 64, decoder.head_dim) for _ in range(3)] for _ in range(2)]
    total = 0.0
    with torch.no_grad():
        for at in range(len(tokens) - 1):
            logits = module(torch.tensor(tokens[at : at + 1]), torch.tensor([at]), *caches)
            total -= float(torch.log_softmax(logits, -1)[tokens[at + 1]])
    checkpoint = exported.Exported(exported.entries(tmp_path / "fp8"), "FP8", None)
    expected = loss.mean_loss(decoder, verify_export.ExportedWeights(checkpoint), tokens, "FP8", None)
    assert abs(total / (len(tokens) - 1) - expected) < 2e-3
    table = module.get_buffer(structures.SCALES)
    assert table.shape == (12, 8)
    assert (table > 0).all()


def test_rows_of_a_parquet_are_samples(tmp_path: Path) -> None:
    """As a dataset of the Hub has them: just the samples that the same lines of JSON are."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    said = [f"a line of text, {at} of many" for at in range(150)]
    lines, rows = tmp_path / "text.jsonl", tmp_path / "text.parquet"
    lines.write_text("".join(json.dumps({"text": each}) + "\n" for each in said))
    parquet.write_table(pyarrow.table({"id": list(range(150)), "text": said}), rows)

    def tokens(text: str) -> list[int]:
        return list(text.encode())

    assert texts.samples(rows, tokens, 120, 20) == texts.samples(lines, tokens, 120, 20)
    parquet.write_table(pyarrow.table({"words": said}), rows)
    with pytest.raises(InputError, match="no parquet file with a column text or article"):
        texts.samples(rows, tokens, 1, 20)
    rows.write_bytes(b"PAR1, and no more")
    with pytest.raises(InputError, match="no parquet file"):
        texts.samples(rows, tokens, 1, 20)


def test_what_cannot_be_read_is_said_once(tmp_path: Path) -> None:
    project = Project(tmp_path / "project")
    project.root.mkdir()
    source = tiny_model(tmp_path / "model")
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "good"}\n{"words": "bad"}\n')
    done = project.trtbuild(*MODELOPT, f"model.source={source}", "quant=fp8", f"compiler.calib_dataset={text}")
    assert done.code == 2
    assert "compiler.calib_dataset: line 2 of text.jsonl is no JSON object with text or article" in done.err
    assert not project.leftovers()
