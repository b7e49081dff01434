"""`serve=`: the command of trtllm-serve, in flags of the contract and limits of the engine; a repository, filled in."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

from tests.compilers.tensorrt_llm.conftest import Bench
from trtbuild.compilers.tensorrt_llm.contract import contract

FILL = """import sys
path, pairs = sys.argv[2], sys.argv[3]
text = open(path).read()
for pair in pairs.split(","):
    name, _, value = pair.partition(":")
    text = text.replace("${" + name + "}", value)
open(path, "w").write(text)
"""
TEMPLATES = {
    "preprocessing": "tokenizer ${tokenizer_dir} batch ${triton_max_batch_size}",
    "postprocessing": "tokenizer ${tokenizer_dir} count ${postprocessing_instance_count}",
    "ensemble": "batch ${triton_max_batch_size} ${logits_datatype}",
    "tensorrt_llm_bls": "decoupled ${decoupled_mode}",
    "tensorrt_llm": "path ${engine_dir} ${batching_strategy} beams ${max_beam_width} reuse ${enable_kv_cache_reuse}",
}


def test_the_command_of_trtllm_serve(bench: Bench) -> None:
    done = bench(
        "build", "profile.max_batch_size=4", "parallel.tp=2", "target.gpus=2", "out=engine", "serve=trtllm"
    )
    assert done.code == 0, done.err
    script = bench.project.root / "engine.serve" / "serve.sh"
    assert str(script.parent) in done.err
    assert os.access(script, os.X_OK)
    (line,) = [line for line in script.read_text().splitlines() if line.startswith("exec ")]
    words = shlex.split(line)[2:-1]
    flags = contract()["trtllm_serve_flags"]
    assert [word for word in words if word.startswith("--") and word not in flags] == []
    engine = str(bench.project.root / "engine")
    pairs = dict(zip(words[1::2], words[2::2], strict=True))
    assert words[0] == engine
    assert pairs["--tokenizer"] == f"{engine}/tokenizer"
    assert pairs["--backend"] == "tensorrt", "the engine backend, which is not its default"
    assert (pairs["--max_batch_size"], pairs["--tensor_parallel_size"]) == ("4", "2")
    assert "never executed on TensorRT-LLM itself" in script.read_text()


def test_a_triton_repository_is_filled_in(bench: Bench, tmp_path: Path) -> None:
    """By the script that is written, with templates and a fill_template.py in place of those of NVIDIA's image."""
    done = bench("build", "profile.max_batch_size=4", "out=engine", "serve=triton")
    assert done.code == 0, done.err
    for model, text in TEMPLATES.items():
        (tmp_path / "models" / model).mkdir(parents=True)
        (tmp_path / "models" / model / "config.pbtxt").write_text(text)
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "fill_template.py").write_text(FILL)
    folder = bench.project.root / "engine.serve"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {"MODELS": str(tmp_path / "models"), "TOOLS": str(tmp_path / "tools"), "PATH": path}
    subprocess.run([folder / "make-repository.sh"], env=env, check=True)
    engine = bench.project.root / "engine"
    made = {model: (folder / "repository" / model / "config.pbtxt").read_text() for model in TEMPLATES}
    assert made == {
        "preprocessing": f"tokenizer {engine}/tokenizer batch 4",
        "postprocessing": f"tokenizer {engine}/tokenizer count 1",
        "ensemble": "batch 4 TYPE_FP32",
        "tensorrt_llm_bls": "decoupled True",
        "tensorrt_llm": f"path {engine} inflight_fused_batching beams 1 reuse True",
    }


def test_it_wants_a_place_and_a_compiler_that_has_it(bench: Bench) -> None:
    nowhere = bench("build", "serve=trtllm")
    assert nowhere.code == 2
    assert "out=engine makes engine and engine.serve" in nowhere.err
    other = bench.project.trtbuild(
        "build", f"model.source={bench.model}", "serve=triton", "out=engine", "compiler=onnxruntime"
    )
    assert other.code == 2
    assert "compilers that have: tensorrt_llm" in other.err
    assert not bench.project.records()
