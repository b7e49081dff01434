"""Build, hit, fetch, plan, run: what a user does, through the real command line on a tiny real model."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import tiny
from tests.support.cli import TRTBUILD, Project
from trtstore import Store


def test_build_then_hit(project: Project, tiny_llama: Path) -> None:
    args = [f"model.source={tiny_llama}", "quant=int8", "output=json"]
    built = project.trtbuild(*args)
    assert built.code == 0, built.err
    first = built.json
    assert first["outcome"] == "built"
    assert [(s["name"], s["outcome"]) for s in first["steps"]] == [("network", "built"), ("engine", "built")]
    for step in first["steps"]:
        assert step["seconds"] > 0
        assert step["bytes"] > 10_000
        assert step["peak_memory_bytes"] > 10_000_000
    assert first["check"]["tokens"] >= 1
    assert {p.name for p in Path(first["path"]).iterdir()} >= {
        "model.onnx",
        "genai_config.json",
        "tokenizer.json",
    }

    again = project.trtbuild(*args).json
    assert again["outcome"] == "hit-local"
    assert [(s["name"], s["outcome"]) for s in again["steps"]] == [
        ("network", "unneeded"),
        ("engine", "hit-local"),
    ]
    assert {k: again[k] for k in ("key", "path", "digest")} == {k: first[k] for k in ("key", "path", "digest")}


def test_a_hit_starts_no_process_and_imports_no_compiler(project: Project, tiny_llama: Path) -> None:
    args = [f"model.source={tiny_llama}", "quant=int8"]
    assert project.trtbuild(*args).code == 0
    witness = project.root / "witness"
    witness.mkdir()
    (witness / "sitecustomize.py").write_text(
        "import sys, atexit\n"
        "sys.addaudithook(lambda e, a: print('STARTED', a[0], file=sys.stderr) if e in"
        " ('subprocess.Popen', 'os.fork', 'os.posix_spawn', 'os.exec') else None)\n"
        "atexit.register(lambda: print('LOADED', *sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr))\n"
    )
    hit = project.trtbuild(*args, env={"PYTHONPATH": str(witness)})
    assert hit.code == 0
    assert "hit-local" in hit.err
    assert "STARTED" not in hit.err
    loaded = set(hit.err.split("LOADED", 1)[1].split())
    assert "trtbuild" in loaded
    assert loaded.isdisjoint({"onnxruntime", "onnxruntime_genai", "onnx", "numpy", "torch", "huggingface_hub"})


def test_text_output_is_the_path_alone_and_records_hold_logs_and_no_path(project: Project, tiny_llama: Path) -> None:
    done = project.trtbuild(f"model.source={tiny_llama}")
    assert done.code == 0
    assert done.out == f"{done.path}\n"
    assert (done.path / "model.onnx").is_file()
    assert done.err.count("\n") < 10  # quiet where there is no terminal
    # The log of each step is kept with the engine, and no record holds a path of this machine.
    statements = [_payload(path) for path in project.records()]
    assert len(statements) == 2
    for statement in statements:
        log = statement["subject"][0]["annotations"]["attachments"]["log"]["digest"].removeprefix("sha256:")
        assert (project.store / "v1" / "blobs" / "sha256" / log[:2] / log).is_file()
        text = json.dumps(statement)
        assert str(project.root) not in text
        assert str(tiny_llama.parent) not in text


def test_nothing_is_written_beside_the_store(project: Project, tiny_llama: Path) -> None:
    before = {p.name for p in project.root.iterdir()}
    assert project.trtbuild("-m", f"model.source={tiny_llama}", "quant=none,int8").code == 0
    assert {p.name for p in project.root.iterdir()} - before == {"home", "store"}
    assert [p for p in (project.root / "home").rglob("*") if p.is_file()] == []


def test_sweep_shares_the_network_and_prints_one_document(project: Project, tiny_llama: Path) -> None:
    done = project.trtbuild("-m", f"model.source={tiny_llama}", "quant=none,int8,int4", "check=none", "output=json")
    assert done.code == 0, done.err
    results = done.json["results"]
    assert [r["quant"] for r in results] == ["none", "int8", "int4"]
    assert [r["steps"][0]["outcome"] for r in results] == ["built", "hit-local", "hit-local"]
    assert len({r["key"] for r in results}) == 3


def test_a_failing_point_of_a_sweep_does_not_stop_the_others(project: Project, tiny_llama: Path) -> None:
    done = project.trtbuild("-m", f"model.source={tiny_llama}", "quant=fp8,int4", "output=json")
    assert done.code == 2
    first, second = done.json["results"]
    assert first["error"]["option"] == "quant=fp8"
    assert second["outcome"] == "built"


def test_plan_says_what_would_run(project: Project, tiny_llama: Path) -> None:
    args = [f"model.source={tiny_llama}", "quant=int4", "check=none", "output=json"]
    before = project.trtbuild("plan", *args).json
    assert [(s["local"], s["runs"]) for s in before["steps"]] == [("miss", True), ("miss", True)]
    kept = {path.relative_to(project.store).parts[1] for path in project.store.rglob("*") if path.is_file()}
    assert kept <= {"index"}  # a plan remembers digests of files, and writes nothing else
    built = project.trtbuild(*args).json
    assert built["key"] == before["key"]
    after = project.trtbuild("plan", *args).json
    assert [(s["local"], s["runs"]) for s in after["steps"]] == [("hit", False), ("hit", False)]
    text = project.trtbuild("plan", *args[:-1]).out
    assert "engine" in text
    assert before["key"][:12] in text
    assert "torch" not in text  # the tools of these steps, and no others


def test_plan_needs_no_compiler(project: Project, tiny_llama: Path) -> None:
    """In a Python where importing any compiler fails."""
    barred = project.root / "barred"
    barred.mkdir()
    for name in ("onnxruntime", "onnxruntime_genai", "onnx", "gguf", "numpy", "safetensors"):
        (barred / f"{name}.py").write_text("raise ImportError('barred')\n")
    args = ["plan", f"model.source={tiny_llama}", "quant=int8", "output=json"]
    done = project.trtbuild(*args, env={"PYTHONPATH": str(barred)})
    assert done.code == 0, done.err
    assert done.json["key"] == project.trtbuild(*args).json["key"]


def test_fetch_hits_after_a_build(project: Project, tiny_llama: Path) -> None:
    args = [f"model.source={tiny_llama}", "quant=int8", "check=none"]
    assert project.trtbuild("fetch", *args).code == 3
    built = project.trtbuild(*args)
    fetched = project.trtbuild("fetch", *args)
    assert fetched.code == 0
    assert fetched.path == built.path


def test_out_is_a_link_to_the_engine(project: Project, tiny_llama: Path) -> None:
    done = project.trtbuild(f"model.source={tiny_llama}", "check=none", "out=engine")
    assert done.code == 0, done.err
    link = project.root / "engine"
    assert link.is_symlink()
    assert link.resolve() == done.path.resolve()
    again = project.trtbuild(f"model.source={tiny_llama}", "check=none", "quant=int4", "out=engine")
    assert again.code == 0, again.err
    assert link.resolve() == again.path.resolve()


def test_until_stops_at_a_step(project: Project, tiny_llama: Path) -> None:
    done = project.trtbuild(f"model.source={tiny_llama}", "quant=int8", "until=network", "output=json")
    assert [s["name"] for s in done.json["steps"]] == ["network"]
    full = project.trtbuild(f"model.source={tiny_llama}", "quant=int8", "output=json").json
    assert [s["outcome"] for s in full["steps"]] == ["hit-local", "built"]
    assert full["steps"][0]["key"] == done.json["key"]


@pytest.mark.parametrize("verify", ["never", "always"])
def test_damage_that_a_hit_finds_is_quarantined_and_built_again(
    project: Project, tiny_llama: Path, verify: str
) -> None:
    args = [f"model.source={tiny_llama}", "quant=int8", "check=none"]
    first = project.trtbuild(*args, "output=json").json
    data = Path(first["path"]) / "model.onnx.data"
    times, right = data.stat(), data.read_bytes()
    data.chmod(0o644)
    data.write_bytes(right[::-1])
    os.utime(data, ns=(times.st_atime_ns, times.st_mtime_ns))
    data.chmod(0o444)
    again = project.trtbuild(*args, f"store.verify={verify}", "output=json")  # sizes and times are right
    assert "its bytes have the SHA-256" in again.err
    assert again.json["outcome"] == "built"
    assert data.read_bytes() == right
    assert len(list((project.store / "v1" / "quarantine").iterdir())) >= 1


def test_what_another_store_has_is_copied_verified_and_not_built(project: Project, tiny_llama: Path) -> None:
    args = [f"model.source={tiny_llama}", "quant=int8", "check=none"]
    built = project.trtbuild(*args, "output=json").json
    mine = ["store.root=mine", f"store.also=[{project.root}/nowhere,{project.store}]"]
    before = snapshot(project.store)
    planned = project.trtbuild("plan", *args, *mine, "output=json").json
    assert [(step["local"], step["also"], step["runs"]) for step in planned["steps"]] == [
        ("miss", str(project.store), False)
    ] * 2
    assert f"hit in {project.store}" in project.trtbuild("plan", *args, *mine).out
    assert not (project.root / "mine" / "v1" / "records").exists()
    hit = project.trtbuild(*args, *mine, "output=json")
    assert (hit.json["outcome"], hit.json["digest"]) == ("hit-local", built["digest"])
    assert f"from {project.store}, every byte verified" in hit.err
    assert Path(hit.json["path"]).is_relative_to(project.root / "mine")
    assert snapshot(project.store) == before  # nothing is written there
    damaged = Path(built["path"]) / "model.onnx.data"
    times, data = damaged.stat(), damaged.read_bytes()
    damaged.chmod(0o644)
    damaged.write_bytes(data[::-1])
    os.utime(damaged, ns=(times.st_atime_ns, times.st_mtime_ns))
    other = ["store.root=other", f"store.also=[{project.store}]"]
    again = project.trtbuild(*args, *other, "output=json")
    assert again.json["outcome"] == "built"
    assert "is not what its name says" in again.err


def snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    paths = [path for path in folder.rglob("*") if "/index/" not in str(path)]
    return {str(path): (path.stat().st_ino, path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


def test_the_command_trtstore_finds_the_same_store(project: Project, tiny_llama: Path) -> None:
    built = project.trtbuild(f"model.source={tiny_llama}", "quant=int8", "check=none", "output=json").json
    hit = project.trtbuild(f"model.source={tiny_llama}", "quant=int8", "check=none", "output=json").json
    assert hit["outcome"] == "hit-local"
    done = subprocess.run(
        [TRTBUILD.with_name("trtstore"), "ls", "step=engine", "--json"],
        env=project.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    (found,) = json.loads(done.stdout)["records"]
    assert (found["key"], found["digest"], found["hits"]) == (built["key"], built["digest"], 1)
    assert found["labels"] == {
        "step": "engine",
        "model": tiny_llama.name,
        "quant": "int8",
        "target": "cpu",
        "compiler": "onnxruntime",
    }
    assert found["saved_seconds"] == found["seconds"] > 0


def test_refresh_builds_again_and_keeps_the_first(project: Project, tiny_llama: Path) -> None:
    args = [f"model.source={tiny_llama}", "quant=int8", "check=none"]
    fresh = project.trtbuild(*args, "refresh=true", "output=json")
    first = fresh.json
    assert "built again" not in fresh.err
    again = project.trtbuild(*args, "refresh=true", "output=json")
    assert again.json["outcome"] == "built"
    assert again.json["digest"] == first["digest"]
    assert "engine: built again, the same bytes" in again.err


@pytest.mark.parametrize("quant", ["none", "int8", "int4"])
def test_run_speaks(project: Project, tiny_llama: Path, quant: str) -> None:
    args = ["run", f"model.source={tiny_llama}", f"quant={quant}", "generate.max_tokens=8"]
    done = project.trtbuild(*args, "prompt=Hello, [you]: it's 'me'")
    assert done.code == 0, done.err
    assert "tokens/s" in done.err
    document = project.trtbuild(*args, "prompt=Hello", "output=json").json
    assert document["outcome"] == "hit-local"
    assert 1 <= document["run"]["tokens"] <= 8


def test_a_folder_moved_renamed_and_touched_is_the_same_model(project: Project, tiny_llama: Path) -> None:
    args = ["plan", "quant=int8", "output=json"]
    moved = shutil.copytree(tiny_llama, project.root / "elsewhere" / "other name")
    (moved / "README.md").write_text("not read by the build")
    for file in moved.iterdir():
        os.utime(file, (1, 1))
    here = project.trtbuild(*args, f"model.source={tiny_llama}").json["key"]
    assert project.trtbuild(*args, f"model.source={moved}").json["key"] == here
    other = tiny.write_model(project.root / "other", seed=1)
    assert project.trtbuild(*args, f"model.source={other}").json["key"] != here


def test_eight_at_once_build_once(project: Project, tiny_llama: Path) -> None:
    args = [f"model.source={tiny_llama}", "quant=int8", "check=none", "output=json"]
    running = [project.start(*args) for _ in range(8)]
    ended = [(process.communicate(timeout=300), process.returncode) for process in running]
    assert [code for _, code in ended] == [0] * 8, ended
    documents = [json.loads(out) for (out, _), _ in ended]
    assert sorted(d["outcome"] for d in documents) == ["built"] + ["hit-local"] * 7
    assert len({d["digest"] for d in documents}) == 1


def test_who_waits_says_for_whom(project: Project, tiny_llama: Path) -> None:
    args = [f"model.source={tiny_llama}", "quant=int8"]
    key = project.trtbuild("plan", *args, "output=json").json["key"]
    with Store.open(project.store).building(key, who="a colleague's build"):
        waiting = project.start(*args)
        assert waiting.stderr is not None
        told = ""
        while "waiting for a colleague's build" not in told:
            line = waiting.stderr.readline()
            assert line, told  # it ended without waiting
            told += line
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, told + err
    assert Path(out.strip()).is_dir()


def test_a_model_changed_during_the_build_is_not_published(project: Project) -> None:
    large = {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "head_dim": 128,
        "vocab_size": 32000,
    }  # a step of a second
    copy = tiny.write_model(project.root / "model", **large)
    running = project.start(f"model.source={copy}")
    deadline = time.monotonic() + 60
    while not project.working():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    generation = copy / "config.json"
    generation.write_text(generation.read_text() + "\n")
    out, err = running.communicate(timeout=120)
    assert running.returncode == 1, err
    assert "changed" in err
    assert out == ""
    assert project.records() == []


def test_hydra_flags_keep_working(project: Project, tiny_llama: Path) -> None:
    config = project.trtbuild("--cfg", "job", "quant=int4")
    assert config.code == 0
    assert "weights: int4" in config.out
    team = project.root / "team" / "model"
    team.mkdir(parents=True)
    (team / "ours.yaml").write_text(f"defaults:\n  - schema\n  - _self_\nsource: {tiny_llama}\n")
    args = ["--config-dir", str(project.root / "team"), "model=ours", "output=json"]
    assert project.trtbuild("plan", *args).json["model"]["label"] == "llama"
    completion = project.trtbuild("-sc", "install=bash")
    assert completion.code == 0
    assert "complete" in completion.out


def test_help_and_version_are_quick_and_plain(project: Project) -> None:
    for words in (["--help"], ["-h"], ["help"], []):
        helped = project.trtbuild(*words)
        assert helped.code == 0
        assert helped.out.startswith("trtbuild:")
    assert project.trtbuild("--version").out.startswith("trtbuild ")


def test_stdout_closed_early_is_no_traceback(project: Project, tiny_llama: Path) -> None:
    shell = f"{TRTBUILD} plan model.source={tiny_llama} | true"
    done = subprocess.run(
        ["bash", "-c", shell], cwd=project.root, env=project.environment(), capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr


def _payload(record: Path) -> dict:
    return json.loads(base64.standard_b64decode(json.loads(record.read_text())["payload"]))
