"""compiler=aot_inductor for real: compiled, run, beside transformers, the module itself and ONNX Runtime."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.networks import tiny_models
from tests.support import tiny
from tests.support.cli import Done, Project
from trtbuild.compilers.aot_inductor import manifest, package_loader, weights
from trtbuild.compilers.aot_inductor.structure import ALIGNED, Structure, WeightScheme
from trtbuild.networks import unpack
from trtbuild.networks.config.architectures import parse
from trtbuild.networks.weights import safetensors_writer
from trtbuild.worker import Reporter, StepRequest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
module = pytest.importorskip("trtbuild.compilers.aot_inductor.module")

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler (Debian's g++)"),
]

#: One thread: several tests run at a time, and more would wait for each other.
AOT = ("compiler=aot_inductor", "executor=process", "executor.threads=1")
PROMPT = "prompt=Why is the sky blue?"
TOLERANCE = 2e-4
TOKENS = np.random.default_rng(5).integers(0, 96, 100)
torch.set_num_threads(1)
HAS_AVX512 = package_loader.level_refusal("x86_64_v4") is None


def ok(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


# The module, which is what is compiled, beside transformers.

CASES = {
    "llama3": tiny_models.config(rope_parameters=tiny_models.LLAMA3),
    "llama-yarn": tiny_models.config(rope_parameters=tiny_models.YARN),
    "llama-biases": tiny_models.config(attention_bias=True, mlp_bias=True, tie_word_embeddings=True),
    "mistral": tiny_models.config("MistralForCausalLM"),
    "mistral-window": tiny_models.config("MistralForCausalLM", sliding_window=7),
    "qwen2": tiny_models.config("Qwen2ForCausalLM"),
    "qwen3": tiny_models.config("Qwen3ForCausalLM"),
}


def loaded(folder: Path, out: Path, settings: dict[str, Any]) -> Any:
    """The module with the weights of the folder's checkpoint, by the weights' step."""
    structure, scheme = Structure.of(parse(settings)), WeightScheme("none", None, False, "float32")
    options = {**structure.facts(), "model.dtype": "float32", "quant.weights": "none"}
    files = {path.name: path for path in folder.iterdir()}
    out.mkdir()
    weights.run(StepRequest("weights", options, files, {}, {}, None), out, Reporter(io.StringIO()))
    decoder = module.DecoderModule(structure, scheme, "cpu")
    decoder.load_state_dict(package_loader.read(out / manifest.WEIGHTS, "cpu"))
    return decoder


def caches(decoder: Any, slots: int) -> list[list[Any]]:
    s = decoder.structure
    return [[torch.zeros(s.kv_heads, slots, s.head_dim) for _ in range(s.layers)] for _ in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    """A prompt, then tokens one by one, with a cache that has room to spare."""
    settings = CASES[case]
    tiny_models.save(tmp_path / "model", settings, tiny_models.weights(settings))
    tiny.write_tokenizer(tmp_path / "model")
    decoder = loaded(tmp_path / "model", tmp_path / "out", settings)
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", dtype=torch.float32, attn_implementation="eager"
    )
    keys, values = caches(decoder, 128)
    ids = torch.tensor(TOKENS)
    with torch.no_grad():
        expected = reference(ids[None]).logits[0]
        found = decoder(ids[:88], torch.arange(88), keys, values)
        assert (found - expected[87]).abs().max() < TOLERANCE
        for at in range(88, 100):
            found = decoder(ids[at : at + 1], torch.tensor([at]), keys, values)
            assert (found - expected[at]).abs().max() < TOLERANCE, at


# Tiny engines, by the command line.

one_tiny_project = pytest.mark.xdist_group("aot-tiny")


@pytest.fixture(scope="module")
def tiny_project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project(tmp_path_factory.mktemp("aot"))
    tiny.write_model(project.root / "model")
    return project


WORDS = (*AOT, "quant=int4", "target=cpu_x86_64_v3", "profile.max_seq_len=96")


@one_tiny_project
def test_a_package_repeats_to_the_byte_in_another_place(tiny_project: Project, tmp_path: Path) -> None:
    words = (*WORDS, f"model.source={tiny_project.root / 'model'}", "output=json")
    one = ok(tiny_project.trtbuild(*words)).json
    other = Project(tmp_path / "another" / "place" / "with-a-longer-name")
    other.root.mkdir(parents=True)
    again = ok(other.trtbuild(*words)).json
    assert [step["outcome"] for step in again["steps"]] == ["built"] * 3
    assert again["digest"] == one["digest"]
    package = Path(again["path"]) / manifest.PACKAGE
    assert str(other.root).encode() not in package.read_bytes()
    assert str(Path(sys.prefix)).encode() not in package.read_bytes()


@one_tiny_project
def test_a_compiled_qwen3_with_its_weights_inside_is_that_of_transformers(tiny_project: Project) -> None:
    source = tiny.write_model(tiny_project.root / "qwen3", architecture="Qwen3ForCausalLM")
    words = (*WORDS, "quant=none", "compiler.weights=embedded", f"model.source={source}")
    folder = ok(tiny_project.trtbuild(*words)).path
    made = manifest.read(folder)
    assert made["weights"] is None
    assert not (folder / manifest.WEIGHTS).exists()
    reference = transformers.AutoModelForCausalLM.from_pretrained(
        source, dtype=torch.float32, attn_implementation="eager"
    )
    package = package_loader.open_package(folder / manifest.PACKAGE)
    ids = torch.tensor(TOKENS[:90])
    s = made["structure"]
    caches = [torch.zeros(s["kv_heads"], 96, s["head_dim"]) for _ in range(2 * s["layers"])]
    with torch.no_grad():
        expected = reference(ids[None]).logits[0]
    (found,) = package.boxed_run([ids[:80], torch.arange(80), *caches])
    assert (found - expected[79]).abs().max() < TOLERANCE
    for at in range(80, 90):
        (found,) = package.boxed_run([ids[at : at + 1], torch.tensor([at]), *caches])
        assert (found - expected[at]).abs().max() < TOLERANCE, at


@one_tiny_project
def test_an_engine_of_another_torch_is_not_opened(tiny_project: Project) -> None:
    words = (*WORDS, f"model.source={tiny_project.root / 'model'}")
    folder = ok(tiny_project.trtbuild(*words)).path
    copy = tiny_project.root / "copy"
    shutil.copytree(folder, copy)
    about = json.loads((copy / manifest.FILE).read_text())
    assert package_loader.refusal(about) is None
    assert "compiled with torch 2.99.0" in str(package_loader.refusal({**about, "torch": "2.99.0"}))


def test_weights_lie_where_kernels_may_read_them(tmp_path: Path) -> None:
    """Behind a tensor of an odd size PyTorch's 8-bit kernel for AVX-512 crashed."""
    rng = np.random.default_rng(3)
    codes, scales = rng.integers(-127, 128, (64, 64), np.int8), rng.random(64, np.float32)
    listed = {"odd": ("int8", (3,)), "codes": ("int8", codes.shape), "scales": ("float32", scales.shape)}
    path, pieces = tmp_path / "model.safetensors", [bytes(3), codes.tobytes(), scales.tobytes()]
    safetensors_writer.write(path, listed, pieces, lambda *_: None, ALIGNED)
    found = package_loader.read(path, "cpu")
    assert {tensor.data_ptr() % ALIGNED for tensor in found.values()} == {0}
    value = torch.randn(5, 64)
    made = torch.ops.aten._weight_int8pack_mm(value.bfloat16(), found["codes"], found["scales"].bfloat16())
    expected = value @ torch.from_numpy(codes.T * scales)
    assert (made - expected).abs().max() < 0.02 * expected.abs().max()


# SmolLM2: none and int8, for AVX2 and AVX-512.

#: Logits: how close two tokens are if rounding may decide which is said. 0.02 was seen; most are 0.2 to 4 apart.
NEAR = 0.1

needs_avx512 = pytest.mark.skipif(not HAS_AVX512, reason="this CPU has no AVX-512")
one_smollm2 = pytest.mark.xdist_group("aot-smollm2")


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("aot-smollm2"))
    words = (
        "-m",
        "model=smollm2",
        "quant=none,int8",
        "target=cpu_x86_64_v3,cpu_x86_64_v4",
        *AOT,
        "output=json",
    )
    document = ok(project.trtbuild(*words, timeout=1500)).json
    (project.root / "sweep.json").write_text(json.dumps(document))
    yield project
    shutil.rmtree(project.store, ignore_errors=True)  # gigabytes


def results(project: Project) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((project.root / "sweep.json").read_text())["results"]
    return found


def behind(folder: Path, prompt: list[int], said: list[int]) -> list[float]:
    """How much less than its best the module itself gives each token that was said, in logits.

    It is uncompiled, and in float32: in bfloat16 it rounds where compiled code does not.
    """
    made = manifest.read(folder)
    scheme = WeightScheme(**made["scheme"], dtype="float32")
    decoder = module.DecoderModule(Structure(**made["structure"]), scheme, "cpu")
    decoder.load_state_dict(package_loader.read(folder / manifest.WEIGHTS, "cpu"))
    keys, values = caches(decoder, 128)
    found: list[float] = []
    ids, at = torch.tensor(prompt), torch.arange(len(prompt))
    with torch.no_grad():
        for token in said:
            logits = decoder(ids, at, keys, values)
            found.append(float(logits.max() - logits[token]))
            ids, at = torch.tensor([token]), at[-1:] + 1
    return found


@one_smollm2
def test_its_engines_are_small_and_its_weights_shared(smollm2: Project) -> None:
    found = results(smollm2)
    assert [result["outcome"] for result in found] == ["built"] * 4
    for result in found:
        assert (Path(result["path"]) / manifest.PACKAGE).stat().st_size < 10e6
        executed = result["check"].get("executed", True)
        assert executed == (result["target"]["level"] == "x86_64_v3" or HAS_AVX512)
    keys = [{step["name"]: step["key"] for step in result["steps"]} for result in found]
    assert keys[0]["weights"] == keys[1]["weights"] != keys[2]["weights"]
    assert len({each["engine"] for each in keys}) == 4


@one_smollm2
@pytest.mark.parametrize("level", ["x86_64_v3", pytest.param("x86_64_v4", marks=needs_avx512)])
@pytest.mark.parametrize("quant", ["none", "int8"])
def test_it_says_what_the_module_says(smollm2: Project, quant: str, level: str) -> None:
    words = ("model=smollm2", f"quant={quant}", f"target=cpu_{level}", *AOT)
    hit = ok(smollm2.trtbuild("fetch", *words, "output=json")).json
    assert hit["outcome"] == "hit-local"
    spoken = ok(smollm2.trtbuild("run", *words, PROMPT, "generate.max_tokens=20", "output=json")).json["run"]
    folder = Path(hit["path"])
    text = pytest.importorskip("trtbuild.compilers.text").Text(folder)
    prompt = text.encode(PROMPT.partition("=")[2], raw=False)
    less = behind(folder, prompt, spoken["token_ids"])
    assert len(less) == 20
    assert max(less) < NEAR
    assert any(word in spoken["text"].lower() for word in ("sky", "light", "scatter", "atmospher"))


@one_smollm2
def test_unquantized_it_says_what_onnx_runtime_says(smollm2: Project) -> None:
    words = ("run", "model=smollm2", PROMPT, "generate.max_tokens=20", "executor=process", "output=json")
    mine = ok(smollm2.trtbuild(*words, "compiler=aot_inductor", "target=cpu_x86_64_v3")).json["run"]
    theirs = ok(smollm2.trtbuild(*words, "compiler=onnxruntime", timeout=600)).json["run"]
    assert mine["text"] == theirs["text"]


@one_smollm2
@pytest.mark.skipif(HAS_AVX512, reason="this CPU has AVX-512; tests/compilers/aot_inductor emulates one without")
def test_an_engine_for_avx512_is_refused_on_this_cpu(smollm2: Project) -> None:
    done = smollm2.trtbuild("run", "model=smollm2", "target=cpu_x86_64_v4", *AOT, PROMPT)
    assert done.code == 2
    assert "cannot run an engine for" in done.err
    assert "x86_64_v4" in done.err
    fits = ok(smollm2.trtbuild("plan", "model=smollm2", *AOT, "output=json")).json["key"]
    assert f"the one that fits this machine is link {fits[:12]}" in done.err


@one_smollm2
def test_a_fine_tune_takes_the_engine_and_says_something_else(smollm2: Project) -> None:
    folder = fine_tune(smollm2)
    words = (f"model.source={folder}", "target=cpu_x86_64_v3", *AOT, "output=json")
    planned = ok(smollm2.trtbuild("plan", *words)).json
    assert planned["steps"][0]["local"] == "hit"
    assert planned["steps"][0]["shared_with"] == ["SmolLM2-135M-Instruct.Q4_1"]
    done = ok(smollm2.trtbuild("run", *words, PROMPT, "generate.max_tokens=20")).json
    assert [step["outcome"] for step in done["steps"]] == ["hit-local", "built", "built"]
    plain = ok(
        smollm2.trtbuild(
            "run",
            "model=smollm2",
            "target=cpu_x86_64_v3",
            *AOT,
            PROMPT,
            "generate.max_tokens=20",
            "output=json",
        )
    ).json
    assert done["run"]["token_ids"] != plain["run"]["token_ids"]
    planned = ok(smollm2.trtbuild("plan", *words)).json
    assert len(planned["steps"][0]["shared_with"]) == 2


def fine_tune(project: Project) -> Path:
    """SmolLM2 as a folder of Hugging Face's, each weight a little off."""
    folder = project.root / "fine-tune"
    folder.mkdir()
    digest = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    gguf = project.store / "v1" / "blobs" / "sha256" / digest[:2] / digest
    link = project.root / "model.gguf"
    link.symlink_to(gguf)
    request = StepRequest("unpack", {"model.dtype": "float16"}, {"model.gguf": link}, {}, {}, None)
    unpack.run(request, folder, Reporter(io.StringIO()))
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    values = np.frombuffer(data, np.float16, offset=start)
    noise = np.random.default_rng(0).normal(0, 0.05, 1 << 20).astype(np.float16)
    values *= 1 + np.resize(noise, values.size)
    path.write_bytes(data)
    return folder
