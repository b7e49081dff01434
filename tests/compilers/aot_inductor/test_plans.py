"""compiler=aot_inductor on the command line, where torch is not installed: keys, what is shared, what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import tiny
from tests.support.cli import Project

AOT = ("compiler=aot_inductor", "target=cpu_x86_64_v3")


def plan(project: Project, *words: str) -> dict[str, Any]:
    done = project.trtbuild("plan", *words, "output=json")
    assert done.code == 0, done.err
    return done.json


def keys(project: Project, *words: str) -> Mapping[str, str]:
    return {step["name"]: step["key"] for step in plan(project, *words)["steps"]}


def model(folder: Path, seed: int = 0, **changes: Any) -> str:
    return f"model.source={tiny.write_model(folder, seed=seed, **changes)}"


def test_fine_tunes_share_the_engine_and_nothing_else(project: Project, tmp_path: Path) -> None:
    one = keys(project, *AOT, model(tmp_path / "one"))
    other = keys(project, *AOT, model(tmp_path / "other", seed=1))
    assert list(one) == ["engine", "weights", "link"]
    assert one["engine"] == other["engine"]
    assert one["weights"] != other["weights"]
    assert one["link"] != other["link"]


def test_another_rotation_is_another_weight(project: Project, tmp_path: Path) -> None:
    one = keys(project, *AOT, model(tmp_path / "one"))
    other = keys(project, *AOT, model(tmp_path / "other", rope_theta=500000.0))
    assert one["engine"] == other["engine"]


def test_a_mistral_of_the_same_structure_shares_the_engine(project: Project, tmp_path: Path) -> None:
    llama = keys(project, *AOT, model(tmp_path / "llama"))
    mistral = model(tmp_path / "mistral", architecture="MistralForCausalLM", sliding_window=None)
    assert keys(project, *AOT, mistral)["engine"] == llama["engine"]


@pytest.mark.parametrize(
    "changes", [{"hidden_size": 128, "head_dim": 16}, {"num_hidden_layers": 3}, {"rms_norm_eps": 1e-6}]
)
def test_another_structure_is_another_engine(project: Project, tmp_path: Path, changes: dict[str, Any]) -> None:
    one = keys(project, *AOT, model(tmp_path / "one"))
    assert keys(project, *AOT, model(tmp_path / "other", **changes))["engine"] != one["engine"]


def test_the_weights_are_the_same_for_every_target(project: Project, tmp_path: Path) -> None:
    source = model(tmp_path / "one")
    words = ("compiler=aot_inductor", "quant=int4", source)
    v3, v4, gpu = (keys(project, *words, f"target={target}") for target in ("cpu_x86_64_v3", "cpu_x86_64_v4", "h200"))
    assert v3["weights"] == v4["weights"] == gpu["weights"]
    assert len({each["engine"] for each in (v3, v4, gpu)}) == 3


def test_gpus_of_one_kind_of_chip_share_an_engine_whose_kernels_are_not_timed(project: Project, tmp_path: Path) -> None:
    """An H100 SXM and an H200 have the same multiprocessors; no driver is in the key."""
    words = ("compiler=aot_inductor", model(tmp_path / "one"))
    h200 = keys(project, *words, "target=h200")["engine"]
    assert keys(project, *words, "target=h100_sxm")["engine"] == h200
    assert keys(project, *words, "target=h200", "target.driver=535.1", "target.cuda='12.2'")["engine"] == h200
    assert keys(project, *words, "target=h100_pcie")["engine"] != h200  # fewer of them
    timed = (*words, "compiler.max_autotune=true")
    assert keys(project, *timed, "target=h200")["engine"] != keys(project, *timed, "target=h100_sxm")["engine"]


def test_embedded_weights_are_one_package_of_one_model(project: Project, tmp_path: Path) -> None:
    words = (*AOT, "compiler.weights=embedded")
    one = keys(project, *words, model(tmp_path / "one"))
    assert list(one) == ["weights", "engine"]
    assert keys(project, *words, model(tmp_path / "other", seed=1))["engine"] != one["engine"]


def test_a_gguf_is_known_by_its_header(project: Project, tiny_gguf: Path) -> None:
    fields = plan(project, *AOT, f"model.source={tiny_gguf}")["steps"][0]["fields"]
    assert {name: fields[f"network.{name}"] for name in ("layers", "hidden", "heads", "kv_heads", "vocab")} == {
        "layers": 2,
        "hidden": 64,
        "heads": 4,
        "kv_heads": 2,
        "vocab": 260,
    }
    assert "model.identity" not in fields


def test_the_demo_model_is_planned_without_its_download(project: Project) -> None:
    steps = plan(project, *AOT, "model=smollm2", "quant=int8")["steps"]
    assert steps[0]["fields"]["network.layers"] == 30
    assert not list((project.root / "home").rglob("*.gguf"))


REFUSED = {
    "parallel.tp=2": "one device",
    "profile.max_batch_size=2": "one sequence at a time",
    "profile.max_seq_len=1": "no room",
    "quant.symmetric=true": "leave quant.symmetric out",
    "quant=int4 quant.group_size=16": "16 is not one of",
    "quant=int4 quant.group_size=64": "columns by 64",
    "quant=int8 model.dtype=float32": "compute in bfloat16",
    "target=cpu_arm64": "x86_64_v3 and x86_64_v4",
    "quant=fp8": "compute capability 8.9 or more, and target=cpu_x86_64_v3 is a CPU",
    "quant=fp8 target=a100_80gb": "compute capability 8.9 or more, and target=a100_80gb has 8.0",
    "quant=fp8_kv target=h100_sxm": "compilers that have it",
    "quant=fp8 target=h100_sxm compiler.calib_size=0": "0 is not above 0",
    "quant=nvfp4": "compilers that have it",
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_it_has_not_is_refused_by_name(project: Project, tmp_path: Path, words: str) -> None:
    done = project.trtbuild("plan", *AOT, model(tmp_path / "one"), *words.split())
    assert done.code == 2
    assert REFUSED[words] in done.err
    assert "Traceback" not in done.err


def test_a_wheel_whose_pins_do_not_say_what_it_is_made_of_is_refused(project: Project) -> None:
    done = project.trtbuild("plan", *AOT, "model=smollm2", "model.wheel.config=null")
    assert done.code == 2
    assert "model.wheel.config" in done.err


def test_an_engine_for_a_gpu_is_not_built_where_there_is_none(project: Project, tmp_path: Path) -> None:
    words = ("compiler=aot_inductor", "target=h200", model(tmp_path / "one"))
    assert plan(project, *words)["steps"][0]["obstacle"]
    done = project.trtbuild(*words)
    assert done.code == 2
    assert "cannot be built on this machine" in done.err


def test_without_a_compiler_for_c_plus_plus_it_says_which_package_has_one(project: Project, tmp_path: Path) -> None:
    """By a Python that seems to have all that the step needs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("sh", "env", "uname"):
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    site = tmp_path / "site" / "torch-2.13.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.13.0\n")
    done = project.trtbuild(
        *AOT,
        model(tmp_path / "one"),
        "executor=process",
        "executor.env=[PYTHONPATH]",
        env={"PATH": str(folder), "PYTHONPATH": str(site.parent)},
    )
    assert done.code in (1, 2)
    assert "apt-get install g++" in done.err or "torch" in done.err


def test_what_is_joined_is_loaded_where_the_engine_is(project: Project, tmp_path: Path) -> None:
    """The step `link` needs no tools, but its check and `run` do: torch, and not the Python at hand."""
    words = (*AOT, model(tmp_path / "one"), "executor=managed")
    toolchains = {each["title"]: each["steps"] for each in plan(project, *words)["toolchains"]}
    assert toolchains == {"aot_inductor": ["engine", "link"], "network": ["weights"]}


FP8 = ("compiler=aot_inductor", "target=h100_sxm", "quant=fp8")


def test_fp8_computes_with_the_checkpoint_that_modelopt_makes_alone(project: Project, tmp_path: Path) -> None:
    """One checkpoint for both; another text changes it and the weights, and never the engine."""
    one = model(tmp_path / "one")
    found = keys(project, *FP8, one)
    assert list(found) == ["checkpoint", "engine", "weights", "link"]
    alone = keys(project, "compiler=modelopt", *FP8[1:], one)
    assert alone == {"checkpoint": found["checkpoint"]}
    text = tmp_path / "text.txt"
    text.write_text("other words")
    other = keys(project, *FP8, one, f"compiler.calib_dataset={text}")
    assert other["engine"] == found["engine"]
    assert all(other[name] != found[name] for name in ("checkpoint", "weights", "link"))
    tune = keys(project, *FP8, model(tmp_path / "tune", seed=1))
    assert tune["engine"] == found["engine"]
    assert keys(project, *FP8[:2], "quant=int8", one)["engine"] != found["engine"]
    notes = plan(project, *FP8, one)["notes"]
    assert any("46 short samples that come with trtbuild" in said for said in notes)


def test_fp8_of_a_gguf_is_unpacked_first(project: Project, tiny_gguf: Path) -> None:
    found = keys(project, *FP8, f"model.source={tiny_gguf}")
    assert list(found) == ["unpack", "checkpoint", "engine", "weights", "link"]


def test_fp8_wants_sizes_that_its_kernels_have(project: Project, tmp_path: Path) -> None:
    done = project.trtbuild("plan", *FP8, model(tmp_path / "odd", intermediate_size=100))
    assert done.code == 2
    assert "mlp.gate_up_proj of this model is 200 x 64, and PyTorch multiplies FP8 in blocks of 16" in done.err
