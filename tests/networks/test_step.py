"""The step as the executor runs it: `python -m trtbuild.networks request.json out/`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.networks.graph_runner import Network
from tests.networks.numpy_decoder import forward
from tests.networks.tiny_models import safetensors_bytes
from tests.support import tiny
from trtbuild.networks.config.architectures import parse

ROOT = Path(__file__).parents[2]
OPTIONS = {"network.frontend": "native", "network.operators": "fused", "model.dtype": "float32"}


def run_step(
    model: Path, out: Path, environment: dict[str, str] | None = None, cwd: Path | None = None, **options: str
) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, events and log of a real worker process."""
    out.mkdir(parents=True)
    dotted = {name.replace("__", "."): value for name, value in options.items()}
    request = out.with_suffix(".json")
    files = {path.name: str(path) for path in model.iterdir()} if model.is_dir() else {model.name: str(model)}
    body = {"step": "network", "options": OPTIONS | dotted, "model": files}
    request.write_text(json.dumps(body | {"inputs": {}, "toolchain": {}, "memory_bytes": None}))
    paths = os.pathsep.join([str(ROOT), str(ROOT / "store")])
    done = subprocess.run(
        [sys.executable, "-m", "trtbuild.networks", str(request), str(out)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": paths, **(environment or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_model(tmp_path_factory.mktemp("model") / "llama")


@pytest.mark.parametrize("operators", ["fused", "standard"])
def test_the_step_writes_a_network_that_computes_the_model(operators: str, llama: Path, tmp_path: Path):
    code, events, log = run_step(llama, tmp_path / "out", network__operators=operators)
    assert code == 0, log
    settings = json.loads((llama / "config.json").read_text())
    facts = events[-1]["facts"]
    tensors = tiny.weights(settings)
    size = sum((tmp_path / "out" / name).stat().st_size for name in ("model.onnx", "model.onnx.data"))
    assert facts == {
        "architecture": "LlamaForCausalLM",
        "parameters": sum(values.size for values in tensors.values()),
        "tensors": len(tensors),
        "bytes": size,
        "operators": operators,
        "dtype": "float32",
        "sliding_window": None,
        "notes": [],
        **({"texts": facts["texts"]} if operators == "fused" else {}),
    }
    assert operators == "standard" or facts["texts"] > 50
    progress = [event for event in events if event["event"] == "progress"]
    assert [event["done"] for event in progress] == sorted(event["done"] for event in progress)
    assert progress[-1]["done"] == progress[-1]["total"]

    ids = np.arange(12)
    logits = Network(parse(settings), tmp_path / "out", operators).step(ids[None])[0]
    settings |= {"rope_parameters": {"rope_theta": settings["rope_theta"]}}
    np.testing.assert_allclose(logits, forward(settings, tensors, ids), atol=2e-4, rtol=0)


def test_the_folder_holds_what_a_runtime_needs(llama: Path, tmp_path: Path):
    run_step(llama, tmp_path / "fused")
    run_step(llama, tmp_path / "standard", network__operators="standard")
    both = {"model.onnx", "model.onnx.data", "config.json", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "standard").iterdir()} == both
    assert {path.name for path in (tmp_path / "fused").iterdir()} == both | {"genai_config.json"}
    assert (tmp_path / "fused/config.json").read_bytes() == (llama / "config.json").read_bytes()


@pytest.mark.parametrize("operators", ["fused", "standard"])
def test_the_bytes_repeat_under_another_home_folder_and_thread_count(operators: str, llama: Path, tmp_path: Path):
    moved = tiny.write_model(tmp_path / "elsewhere" / "a copy")
    runs = {
        "a": (llama, {"HOME": "/nonexistent", "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1"}, tmp_path),
        "b": (moved, {"HOME": str(tmp_path), "OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "2"}, Path("/")),
    }
    for name, (model, environment, cwd) in runs.items():
        code, _, log = run_step(model, tmp_path / name, environment, cwd, network__operators=operators)
        assert code == 0, log
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


@pytest.mark.parametrize(
    "options, option, words",
    [
        ({"network__operators": "cuda"}, "network.operators", "network.operators=cuda is not one of fused"),
        ({"model__dtype": "int8"}, "model.dtype", "model.dtype=int8 is not one of float32"),
        ({"network__frontend": "torch"}, "network.frontend", "network.frontend=torch is not one of native"),
    ],
)
def test_an_unknown_option_is_an_input_error(options: dict, option: str, words: str, llama: Path, tmp_path: Path):
    code, events, _ = run_step(llama, tmp_path / "out", **options)
    assert code == 1
    assert (events[-1]["event"], events[-1]["kind"], events[-1]["option"]) == ("error", "input", option)
    assert words in events[-1]["message"]


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"num_hidden_layers": 3}, "lacks the tensor model.layers.2."),
        ({"vocab_size": 300}, "[259, 64]"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu'"),
        ({"head_dim": 8, "num_attention_heads": 8, "num_key_value_heads": 4}, "head_dim=8"),
    ],
)
def test_what_cannot_be_built_is_refused_before_anything_is_written(changes: dict, words: str, tmp_path: Path):
    spoilt = tiny.write_model(tmp_path / "model")
    settings = json.loads((spoilt / "config.json").read_text())
    (spoilt / "config.json").write_text(json.dumps(settings | changes))
    code, events, _ = run_step(spoilt, tmp_path / "out")
    assert code == 1
    assert events[-1]["kind"] == "input"
    assert words in events[-1]["message"]
    assert list((tmp_path / "out").iterdir()) == []


PEAK = """
import resource, sys
sys.argv = ["trtbuild.networks", *sys.argv[1:]]
import trtbuild.networks.build
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from trtbuild.worker import serve
serve("trtbuild.networks.build:run")
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(f"peak {before} {after}", file=sys.stderr)
"""


@pytest.mark.slow
def test_memory_holds_a_few_tensors_and_never_the_checkpoint(tmp_path: Path):
    """About 400 MB of bfloat16 in four shards become 800 MB of float32; the largest tensor has 64 MB."""
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 10, "vocab_size": 16384}
    settings = tiny.config(num_attention_heads=16, num_key_value_heads=4, head_dim=64, **sizes)
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(settings))
    tiny.write_tokenizer(model)
    tensors = tiny.weights(settings)
    names = sorted(tensors)
    places = {}
    for shard in range(4):
        file = f"model-{shard + 1:05}-of-00004.safetensors"
        part = {name: tensors[name] for name in names[shard::4]}
        (model / file).write_bytes(safetensors_bytes(part, "BF16"))
        places |= dict.fromkeys(part, file)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    del tensors
    total = sum(path.stat().st_size for path in model.iterdir())
    assert total > 250e6

    for operators in ("fused", "standard"):
        request = {
            "step": "network",
            "options": OPTIONS | {"network.operators": operators},
            "model": {path.name: str(path) for path in model.iterdir()},
            "inputs": {},
            "toolchain": {},
            "memory_bytes": None,
        }
        (tmp_path / f"{operators}.json").write_text(json.dumps(request))
        (tmp_path / operators).mkdir()
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(tmp_path / f"{operators}.json"), str(tmp_path / operators)],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "store")])},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        before, after = (int(number) * 1024 for number in done.stderr.split()[-2:])
        # A float32 tensor of 64 MB, its half as bfloat16, and the pieces of it.
        assert after - before < 250e6, operators
