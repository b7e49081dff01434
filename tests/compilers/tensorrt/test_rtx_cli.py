"""The command line with compiler=tensorrt_rtx: SmolLM2 for a GPU that is not here, and what a user is told."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.cli import TRTBUILD, Project
from trtbuild.compilers.tensorrt import header
from trtstore import Store

pytestmark = pytest.mark.slow
RTX = ("compiler=tensorrt_rtx", "target=rtx4070")
TINY = ("profile.max_seq_len=128",)


@pytest.mark.xdist_group("smollm2")
@pytest.mark.parametrize(
    "quant, megabytes",
    [("int8", (165, 200)), ("int4", (120, 155))],
)
def test_smollm2_for_an_rtx4070(quant: str, megabytes: tuple[int, int], smollm2: Project) -> None:
    args = ("model=smollm2", f"quant={quant}", *RTX)
    first = smollm2.trtbuild(*args, "output=json", timeout=600)
    assert first.code == 0, first.err
    done = first.json
    assert done["check"]["executed"] is False
    assert [step["name"] for step in done["steps"]] == ["network", "engine"]
    folder = Path(done["path"])
    assert megabytes[0] < (folder / "model.engine").stat().st_size / 1e6 < megabytes[1]
    with (folder / "model.engine").open("rb") as stream:
        found = header.read(stream.read(header.SIZE))
    assert found is not None and found.capabilities == ("8.9",)


@pytest.mark.xdist_group("smollm2")
def test_smollm2_twice_the_same_bytes(smollm2: Project) -> None:
    """Tiny engines of the other schemes are built twice in test_engines.py."""
    args = ("model=smollm2", "quant=int4", *RTX)
    smollm2.trtbuild(*args, timeout=600)
    again = smollm2.trtbuild(*args, "refresh=true", "executor.threads=1", timeout=600)
    assert "engine: built again, the same bytes as in the store" in again.err


def test_a_user_is_told_that_an_engine_was_not_executed(project: Project, tiny_llama: Path) -> None:
    args = (f"model.source={tiny_llama}", "quant=fp8_weights", *RTX, *TINY)
    done = project.trtbuild(*args)
    assert done.code == 0, done.err
    told = "check    verified   not executed: it is for compute capability 8.9, and this machine has no NVIDIA driver"
    assert told in done.err
    hit = project.trtbuild(*args)
    assert "hit-local" in hit.err and told in hit.err
    assert json.loads((done.path / "engine.json").read_text())["weights"] == "fp8"


def test_the_record_and_show_say_what_the_engine_is_and_that_it_was_not_executed(
    project: Project, tiny_llama: Path
) -> None:
    key = project.trtbuild(f"model.source={tiny_llama}", "quant=int4", *RTX, *TINY, "output=json").json["key"]
    record = Store.open(project.store).lookup(key)
    assert record is not None
    facts = record.predicate["trtbuild_facts"]
    assert facts["executed"] is False
    assert facts["engine"]["engines"][0]["phases"][0]["tokens"] == [1, 1, 64]
    command = [TRTBUILD.with_name("trtstore"), "show", key]
    shown = subprocess.run(command, env=project.environment(), capture_output=True, text=True, check=True).stdout
    for line in (
        "executed no: it is for compute capability 8.9, and this machine has no NVIDIA driver",
        "engine   tensorrt_rtx 1.7.1.116, float16, weights int4 in groups of 32, for compute capability 8.9",
        "limits   sequences 1, tokens of a prompt 64, of prompt and answer 128",
        "         profile any: batch 1, tokens 1 to 64 (tuned for 1), past 0 to 127 (tuned for 63)",
    ):
        assert f"\n{line}\n" in shown


def test_running_it_here_is_refused_before_anything_is_built(project: Project, tiny_llama: Path) -> None:
    done = project.trtbuild("run", f"model.source={tiny_llama}", *RTX, *TINY, "prompt=hello")
    assert done.code == 2
    told = "error: target=rtx4070: this machine cannot run an engine for compute capability 8.9: this machine has no"
    assert told in done.err
    swept = project.trtbuild("run", "-m", f"model.source={tiny_llama}", *RTX, *TINY, "prompt=hello", "quant=none,int8")
    assert (swept.code, told in swept.err) == (2, True)
    assert list(Store.open(project.store).keys()) == []


def test_one_portable_engine_for_two_targets(project: Project, tiny_llama: Path) -> None:
    args = (
        f"model.source={tiny_llama}",
        "compiler=tensorrt_rtx",
        "compiler.portable=true",
        *TINY,
        "output=json",
    )
    named = (f"model.source={tiny_llama}", "compiler=tensorrt_rtx", "target=rtx_any", *TINY, "output=json")
    first, other = (project.trtbuild(*args, f"target={name}").json for name in ("rtx4070", "rtx5090"))
    assert (first["outcome"], other["outcome"]) == ("built", "hit-local")
    assert first["key"] == other["key"]
    third = project.trtbuild(*named)
    assert (third.json["outcome"], third.json["key"]) == ("hit-local", first["key"])
    refused = project.trtbuild(f"model.source={tiny_llama}", "compiler=tensorrt", "target=rtx_any")
    assert refused.code == 2
    assert "is a class of GPUs, and tensorrt builds for one kind" in refused.err


def test_three_targets_share_one_network(project: Project, tiny_llama: Path) -> None:
    args = (
        "-m",
        f"model.source={tiny_llama}",
        "compiler=tensorrt_rtx",
        *TINY,
        "output=json",
    )
    done = project.trtbuild(*args, "target=rtx3090,rtx4070,rtx5090").json["results"]
    assert len({each["digest"] for each in done}) == 3
    networks = [step["outcome"] for each in done for step in each["steps"] if step["name"] == "network"]
    assert networks == ["built"] + ["hit-local"] * 2


def test_hopper_is_refused_before_anything_is_done(project: Project, tiny_llama: Path) -> None:
    done = project.trtbuild(f"model.source={tiny_llama}", "compiler=tensorrt_rtx", "target=h100_sxm")
    assert done.code == 2
    assert "target=h100_sxm has 9.0" in done.err and "hint: compiler=tensorrt" in done.err
    assert not project.records()


def test_tensorrt_itself_plans_anywhere_and_builds_on_its_target_alone(project: Project, tiny_llama: Path) -> None:
    args = (f"model.source={tiny_llama}", "compiler=tensorrt", "target=h100_sxm")
    planned = project.trtbuild("plan", *args, "output=json").json
    assert planned["steps"][1]["fields"]["target.gpu"] == "H100 80GB HBM3"
    done = project.trtbuild(*args)
    assert done.code == 2
    assert "h100_sxm cannot be built on this machine" in done.err
