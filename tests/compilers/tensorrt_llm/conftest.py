"""A machine with an RTX 4070 and TensorRT-LLM: NVIDIA's library and NVIDIA's tools are stand-ins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import nvml, tensorrt_llm_standin
from tests.support.cli import Done, Project
from tests.support.tensorrt_llm_standin import StandIn
from tests.targets.conftest import facts

LIBRARY = "LD_LIBRARY_PATH"


@dataclass(frozen=True)
class Bench:
    """A project on that machine."""

    project: Project
    tools: StandIn
    library: Path
    model: Path

    def env(self, machine: str = "rtx4070") -> dict[str, str]:
        return {LIBRARY: str(self.library), nvml.FACTS: str(facts(machine)), **self.tools.env}

    def __call__(self, verb: str, *words: str, machine: str = "rtx4070", env: Mapping[str, str] | None = None) -> Done:
        """`trtbuild verb` for the tiny model with these options, in one process of the stand-in's Python."""
        model = () if any(word.startswith("model") for word in words) else (f"model.source={self.model}",)
        key, words = (words[:1], words[1:]) if verb == "rebuild" else ((), words)
        named = (*key, "compiler=tensorrt_llm", *model, *self.tools.words, *words)
        return self.project.trtbuild(verb, *named, env={**self.env(machine), **(env or {})})

    def build(self, *words: str, machine: str = "rtx4070") -> Path:
        """The engine's folder."""
        done = self("build", *words, machine=machine)
        assert done.code == 0, done.err
        return done.path


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return nvml.build(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def bench(project: Project, nvml_library: Path, tiny_llama: Path, tmp_path: Path) -> Bench:
    return Bench(project, tensorrt_llm_standin.install(tmp_path / "nvidia"), nvml_library, tiny_llama)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"text": "The sky is blue."}\n')
    return folder
