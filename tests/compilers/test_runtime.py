"""The engine's workers as the executor starts them: build, check, generate."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.compilers.support import OPTIONS, make_engine, make_network, write_request
from trtbuild.compilers.onnxruntime.runtime import Engine, Sampling, generate_text

PACKAGE = "trtbuild.compilers.onnxruntime"
CHECK = {"prompt": "Why is the sky blue?", "max_tokens": 16, "raw": False}
GENERATE = CHECK | {"temperature": 0.0, "top_p": 1.0, "seed": 0}


@pytest.fixture(scope="module")
def network(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_network(tiny_llama, tmp_path_factory.mktemp("network") / "out")


@pytest.fixture(scope="module")
def engine(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine") / "out"
    make_engine(network, folder, quant__weights="int8")
    return folder


def work(module: str, request: Path, out: Path) -> tuple[list[dict[str, Any]], int]:
    """Run a worker; returns its events and its exit code."""
    out.mkdir(exist_ok=True)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(part or str(Path.cwd()) for part in sys.path)}
    command = [sys.executable, "-m", module, str(request), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()], done.returncode


def use(module: str, options: dict[str, Any], engine: Path, tmp_path: Path) -> dict[str, Any]:
    """The last event of the check or of the generation of `engine`."""
    request = write_request(tmp_path / "request.json", options, engine=engine)
    return work(f"{PACKAGE}.{module}", request, tmp_path / "out")[0][-1]


def scale_norm(engine: Path, out: Path, factor: float) -> Path:
    """A copy of `engine` whose last norm is multiplied by `factor`."""
    shutil.copytree(engine, out)
    model = onnx.load(out / "model.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("model.norm"):
            values = numpy_helper.to_array(tensor) * np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    (out / "model.onnx").write_bytes(model.SerializeToString())
    return out


def test_a_worker_builds_an_engine_and_reports(network: Path, tmp_path: Path) -> None:
    request = write_request(tmp_path / "request.json", OPTIONS | {"quant.weights": "int4"}, network=network)
    events, code = work(PACKAGE, request, tmp_path / "out")
    assert code == 0
    facts = events[-1]["facts"]
    assert "/lm_head/MatMul" in facts["quantized_nodes"]
    assert len(facts["quantized_nodes"]) == 12
    assert facts["outputs"][0] == "logits"
    assert facts["bytes"] == sum(path.stat().st_size for path in (tmp_path / "out").glob("model.onnx*"))
    progress = [event for event in events if event["event"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("engine-")] == []


def test_the_check_says_how_the_engine_did(engine: Path, tmp_path: Path) -> None:
    facts = use("check", CHECK, engine, tmp_path)["facts"]
    assert facts["prompt_tokens"] == len(CHECK["prompt"])  # one a byte
    assert 1 <= facts["tokens"] <= 16
    assert 0 < facts["load_seconds"] < 60
    assert 0 < facts["first_token_seconds"] < 60


@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_logits_that_are_no_numbers_fail_the_check(factor: float, engine: Path, tmp_path: Path) -> None:
    broken = scale_norm(engine, tmp_path / "broken", factor)
    event = use("check", CHECK, broken, tmp_path)
    assert event["kind"] == "build"
    assert "not finite" in event["message"]


def test_one_token_over_and_over_fails_the_check(engine: Path, tmp_path: Path) -> None:
    constant = scale_norm(engine, tmp_path / "constant", 0.0)  # all logits are equal: the first token always wins
    assert "repeats one token" in use("check", CHECK, constant, tmp_path)["message"]


def test_an_engine_that_does_not_load_fails_the_check(engine: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(engine, tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"not a model")
    event = use("check", CHECK, broken, tmp_path)
    assert event["kind"] == "build"
    assert "cannot load the engine" in event["message"]


def test_text_streams_and_repeats(engine: Path, tmp_path: Path) -> None:
    request = write_request(tmp_path / "request.json", GENERATE, engine=engine)
    events, code = work(f"{PACKAGE}.generate", request, tmp_path / "out")
    assert code == 0
    streamed = "".join(event["text"] for event in events if event["event"] == "text")
    assert streamed == events[-1]["facts"]["text"]
    assert use("generate", GENERATE, engine, tmp_path)["facts"]["text"] == streamed


def test_sampling_follows_its_seed(engine: Path) -> None:
    loaded = Engine.load(engine)
    prompt = loaded.encode("the sky", raw=True)

    def sampled(seed: int) -> tuple[int, ...]:
        return generate_text(loaded, prompt, 24, Sampling(1.0, 1.0, seed), lambda _: None).tokens

    assert sampled(1) == sampled(1)
    assert len({sampled(seed) for seed in range(5)}) > 1


def test_the_answer_ends_with_the_context(network: Path, tmp_path: Path) -> None:
    make_engine(network, tmp_path / "short", profile__max_seq_len=12)
    loaded = Engine.load(tmp_path / "short")
    prompt = loaded.encode("12345678", raw=True)
    assert len(generate_text(loaded, prompt, 100, Sampling(), lambda _: None).tokens) <= 4
    event = use("generate", GENERATE | {"prompt": "x" * 12}, tmp_path / "short", tmp_path)
    assert event["kind"] == "input"
    assert event["option"] == "prompt"


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"prompt": ""}, "prompt"),
        ({"max_tokens": 0}, "generate.max_tokens"),
        ({"temperature": -1.0}, "generate.temperature"),
        ({"top_p": 0.0}, "generate.top_p"),
    ],
)
def test_bad_wishes_are_named(change: dict[str, Any], option: str, engine: Path, tmp_path: Path) -> None:
    event = use("generate", GENERATE | change, engine, tmp_path)
    assert (event["kind"], event["option"]) == ("input", option)
