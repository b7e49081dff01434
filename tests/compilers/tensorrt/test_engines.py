"""Real engines of TensorRT for RTX, built here without a GPU: tiny models, one worker process each."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.compilers.tensorrt import workers
from tests.compilers.tensorrt.workers import check, make_engine, make_network
from tests.support import tiny
from trtbuild.compilers.tensorrt import header
from trtbuild.compilers.tensorrt.compiler import RTX_CAPABILITIES

pytestmark = pytest.mark.slow
MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"architecture": "Qwen2ForCausalLM"},
    "qwen3": {"architecture": "Qwen3ForCausalLM", "tie_word_embeddings": False},
    "mistral": {"architecture": "MistralForCausalLM", "sliding_window": 16},
}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("networks")
    made = {}
    for name, changes in MODELS.items():
        made[name] = make_network(tiny.write_model(home / name / "hf", **changes), home / name / "net")
    return made


def read_header(engine: Path, name: str = "model.engine") -> header.EngineHeader:
    with (engine / name).open("rb") as stream:
        found = header.read(stream.read(header.SIZE))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "model, weights", [("llama", "int8"), ("qwen2", "none"), ("qwen3", "int4"), ("mistral", "int8")]
)
def test_an_engine_and_what_it_takes_to_feed_it(
    model: str, weights: str, networks: dict[str, Path], tmp_path: Path
) -> None:
    group = {"quant__group_size": 32} if weights == "int4" else {}
    made = make_engine(networks[model], tmp_path / "engine", quant__weights=weights, **group)
    assert made.code == 0, made.log
    size = (tmp_path / "engine" / "model.engine").stat().st_size
    assert read_header(tmp_path / "engine") == header.EngineHeader("1.7.1.116", ("8.9",), size)
    told = json.loads((tmp_path / "engine" / "engine.json").read_text())
    assert told == made.result["engine"]
    assert made.result["executed"] is False
    assert (told["weights"], told["compute_capability"], told["dtype"]) == (weights, "8.9", "float16")
    assert told["limits"] == {"max_batch_size": 1, "max_input_len": 32, "max_seq_len": 128}
    (engine,) = told["engines"]
    assert {each["name"]: (each["dtype"], each["shape"]) for each in engine["inputs"]} == {
        "input_ids": ("int32", [-1, -1]),
        "position_ids": ("int32", [-1, -1]),
        "attention_bias": ("float16", [-1, 1, -1, -1]),
        "past_key_values.{layer}.key": ("float16", [-1, 2, -1, 16]),
        "past_key_values.{layer}.value": ("float16", [-1, 2, -1, 16]),
    }
    outputs = {each["name"] for each in engine["outputs"]}
    assert outputs == {"logits", "new.{layer}.key", "new.{layer}.value"}
    files = {path.name for path in (tmp_path / "engine").iterdir()}
    assert {"tokenizer.json", "config.json"} <= files and "model.onnx" not in files


def test_integers_make_the_engine_smaller(tmp_path: Path) -> None:
    wide = {"hidden_size": 512, "intermediate_size": 1024, "num_attention_heads": 8, "head_dim": 64}
    network = make_network(tiny.write_model(tmp_path / "hf", **wide), tmp_path / "net")
    sizes = {}
    groups = {"none": {}, "int8": {}, "fp8": {}, "int4": {"quant__group_size": 64}}
    for weights, group in groups.items():
        made = make_engine(network, tmp_path / weights, quant__weights=weights, **group)
        assert made.code == 0, made.log
        sizes[weights] = made.result["bytes"]
    linear = 2 * (512 * 512 * 2 + 512 * 128 * 2 + 3 * 512 * 1024)  # weights of two layers
    assert sizes["none"] - sizes["int8"] > 0.8 * linear
    assert sizes["int8"] - sizes["int4"] > 0.3 * linear
    assert abs(sizes["int8"] - sizes["fp8"]) < 0.1 * linear


@pytest.mark.parametrize("capability", sorted({*RTX_CAPABILITIES} - {"8.9"}))  # of which are the engines above
def test_each_compute_capability_is_in_the_plan(capability: str, networks: dict[str, Path], tmp_path: Path) -> None:
    made = make_engine(networks["llama"], tmp_path / "engine", target__compute_capability=capability)
    assert made.code == 0, made.log
    assert read_header(tmp_path / "engine").capabilities == (capability,)
    checked = check(tmp_path / "engine", tmp_path / "check")
    assert checked.result["executed"] is False
    assert capability in checked.result["why"]


def test_a_portable_engine_is_for_all_from_8_0_on(networks: dict[str, Path], tmp_path: Path) -> None:
    made = make_engine(networks["llama"], tmp_path / "engine", target__compute_capability=None)
    assert made.code == 0, made.log
    assert read_header(tmp_path / "engine").capabilities == header.CAPABILITIES[1:]
    checked = check(tmp_path / "engine", tmp_path / "check")
    assert "8.0 and later" in checked.result["why"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_other_types_of_activations(dtype: str, tmp_path: Path) -> None:
    network = make_network(tiny.write_model(tmp_path / "hf"), tmp_path / "net", dtype)
    options = {"quant__weights": "int4", "quant__group_size": 32} if dtype == "bfloat16" else {}
    made = make_engine(network, tmp_path / "engine", model__dtype=dtype, **options)
    assert made.code == 0, made.log
    outputs = made.result["engine"]["engines"][0]["outputs"]
    assert {each["dtype"] for each in outputs} == {dtype}


@pytest.mark.parametrize("shapes, weights", [("phases", "int8"), ("static", "none"), ("dynamic", "fp8")])
def test_the_same_bytes_whatever_the_paths_and_the_environment(
    shapes: str, weights: str, networks: dict[str, Path], tmp_path: Path
) -> None:
    """Two networks in folders of other lengths, another environment, one CPU: the plans are equal to the byte."""
    options = {
        "compiler__shapes": shapes,
        "quant__weights": weights,
        "target__compute_capability": "8.9" if weights == "fp8" else "8.6",
    }
    one = make_engine(networks["qwen3"], tmp_path / "one", **options)
    assert one.code == 0, one.log
    assert one.result["addresses_randomised"] is False
    there = tmp_path / "a folder whose name is rather long" / ("and deep" * 9)
    shutil.copytree(networks["qwen3"], there / "network")
    other = make_engine(there / "network", there / "engine", {"FILLER": "x" * 5000}, **options)
    assert other.code == 0, other.log
    plans = sorted(path.name for path in (tmp_path / "one").glob("*.engine"))
    assert plans == (["decode.engine", "prefill.engine"] if shapes == "static" else ["model.engine"])
    for name in (*plans, "engine.json"):
        assert (tmp_path / "one" / name).read_bytes() == (there / "engine" / name).read_bytes(), name


def test_static_engines_have_fixed_shapes_and_phases_two_profiles(networks: dict[str, Path], tmp_path: Path) -> None:
    made = make_engine(networks["llama"], tmp_path / "static", compiler__shapes="static", profile__max_batch_size=2)
    assert made.code == 0, made.log
    shapes = {
        engine["file"]: {each["name"]: each["shape"] for each in engine["inputs"]}
        for engine in made.result["engine"]["engines"]
    }
    assert shapes["decode.engine"]["input_ids"] == [2, 1]
    assert shapes["decode.engine"]["past_key_values.{layer}.key"] == [2, 2, 127, 16]
    assert shapes["prefill.engine"]["attention_bias"] == [2, 1, 32, 128]
    made = make_engine(networks["llama"], tmp_path / "phases", compiler__shapes="phases")
    phases = made.result["engine"]["engines"][0]["phases"]
    assert [phase["name"] for phase in phases] == ["decode", "prefill"]


def test_what_the_builder_refuses_is_told_in_its_words(networks: dict[str, Path], tmp_path: Path) -> None:
    made = make_engine(
        networks["llama"],
        tmp_path / "engine",
        quant__weights="int4",
        quant__group_size=32,
        target__compute_capability="7.5",
    )
    assert made.code == 1
    assert made.error["kind"] == "build"
    assert "int4" in made.error["message"] and "sm75" in made.error["message"]


def test_limits_beyond_the_model_are_refused(networks: dict[str, Path], tmp_path: Path) -> None:
    made = make_engine(networks["llama"], tmp_path / "engine", profile__max_seq_len=257)
    assert made.error["kind"] == "input"
    assert made.error["option"] == "profile.max_seq_len"
    assert "256" in made.error["hint"]


def test_the_default_length_gives_way_to_a_shorter_context(networks: dict[str, Path], tmp_path: Path) -> None:
    made = make_engine(networks["llama"], tmp_path / "engine", profile__max_seq_len=2048, profile__max_input_len=1024)
    assert made.code == 0, made.log
    limits = made.result["engine"]["limits"]
    assert (limits["max_input_len"], limits["max_seq_len"]) == (128, 256)


def test_a_network_that_cannot_be_read_is_an_error_of_one_sentence(networks: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(networks["llama"], tmp_path / "net")
    graph = (tmp_path / "net" / "model.onnx").read_bytes()
    (tmp_path / "net" / "model.onnx").write_bytes(graph.replace(b"Softmax", b"Softmix"))
    made = make_engine(tmp_path / "net", tmp_path / "engine")
    assert made.error["kind"] == "build"
    assert "Softmix" in made.error["message"]


@pytest.fixture(scope="module")
def built(networks: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("built") / "engine"
    assert make_engine(networks["llama"], out).code == 0
    return out


def test_a_plan_that_was_cut_off_fails_its_check(built: Path, tmp_path: Path) -> None:
    shutil.copytree(built, tmp_path / "engine")
    plan = tmp_path / "engine" / "model.engine"
    plan.write_bytes(plan.read_bytes()[:-1000])
    checked = check(tmp_path / "engine", tmp_path / "check")
    assert checked.error["kind"] == "build"
    assert "cut off" in checked.error["message"]


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("compute_capability", "8.6", "for compute capability 8.9"),
        ("release", "1.6.0.1", "of release 1.7.1.116"),
    ],
)
def test_a_plan_of_other_hardware_or_another_release_fails_its_check(
    field: str, value: str, words: str, built: Path, tmp_path: Path
) -> None:
    shutil.copytree(built, tmp_path / "engine")
    told = json.loads((built / "engine.json").read_text())
    (tmp_path / "engine" / "engine.json").write_text(json.dumps({**told, field: value}))
    checked = check(tmp_path / "engine", tmp_path / "check")
    assert words in checked.error["message"]
    assert value in checked.error["message"]


def test_a_check_says_what_held_and_what_was_not_done(built: Path, tmp_path: Path) -> None:
    checked = check(built, tmp_path / "check")
    assert checked.result == {
        "executed": False,
        "why": "it is for compute capability 8.9, and this machine has no NVIDIA driver",
        "verified": ["model.engine: header, size, release and compute capability"],
    }


def test_generating_without_a_gpu_is_refused_with_the_reason(built: Path, tmp_path: Path) -> None:
    options = {"prompt": "hello", "max_tokens": 4, "raw": False, "temperature": 0.0, "top_p": 1.0, "seed": 0}
    made = workers.run("trtbuild.compilers.tensorrt.generate", tmp_path / "out", options, engine=built)
    assert made.error["kind"] == "input"
    assert "compute capability 8.9, and this machine has no NVIDIA driver" in made.error["message"]


def test_what_only_tensorrt_has_runs_through_this_library(networks: dict[str, Path], tmp_path: Path) -> None:
    """TensorRT's own branch of the builder with the module of TensorRT for RTX, whose interface is that of release 11:
    levels, memory, tactic sources, a timing cache from one engine to the next. No engine of TensorRT's is made here."""
    for name in ("model.onnx", "model.onnx.data"):
        (tmp_path / name).symlink_to(networks["llama"] / name)
    code = f"""
import json, pathlib, shutil, tensorrt_rtx_bindings as tensorrt_rtx
from tests.compilers.tensorrt.support import TENSORRT_OPTIONS
from trtbuild.compilers.tensorrt import builder, shapes
from trtbuild.networks.config.architectures import parse

decoder = parse(json.load(open({str(networks["llama"] / "config.json")!r})))
options = {{name.removeprefix("compiler."): value for name, value in TENSORRT_OPTIONS.items()}}
options |= {{"optimization_level": 1, "workspace_gb": 0.5, "hardware_compatibility": "ampere_plus"}}
options |= {{"tactic_sources": "edge_mask_convolutions+jit_convolutions", "weight_streaming": True}}
plans = shapes.engines("static", shapes.ProfileLimits(1, 16, 64))
engines = [{{"file": p.file, "static": True, "profiles": [shapes.inputs(decoder, p.phases[0])]}} for p in plans]
spec = {{"compiler": "tensorrt", "compute_capability": "8.9", "dtype": "float16", "options": options}}
first = builder.run({{**spec, "engines": engines, "timings": 0}}, tensorrt_rtx)
pathlib.Path("timings").rename("timings.0")
shutil.copyfile("timings.0", "timings.1")  # two builds left theirs
print(json.dumps([first, builder.run({{**spec, "engines": engines, "timings": 2}}, tensorrt_rtx)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{workers.ROOT}:{workers.ROOT / 'store'}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told, again = json.loads(done.stdout.splitlines()[-1])
    assert [engine["file"] for engine in told["engines"]] == ["decode.engine", "prefill.engine"]
    assert (tmp_path / "timings").stat().st_size == again["timing_cache_bytes"]
    assert told["timing_cache_bytes"] == again["timing_cache_bytes"] > 0  # joined, not piled up
    assert (tmp_path / "prefill.engine").stat().st_size > 0
