"""Builds with the stand-in for NVIDIA's tools, from the command line to an engine in the store."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import gguf

from tests.compilers.tensorrt_llm.conftest import Bench
from trtstore import Store

HERE = Path(__file__).parent


def engine(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


def facts(bench: Bench, key: str) -> dict:
    """What the record of `key` says."""
    record = Store.open(bench.project.store).lookup(key)
    assert record is not None
    return dict(record.predicate["trtbuild_facts"])


def test_an_engine_for_two_ranks_is_built_kept_and_hit(bench: Bench) -> None:
    words = ("parallel.tp=2", "target.gpus=2", "profile.max_batch_size=4", "compiler.gemm_plugin=auto")
    done = bench("build", *words)
    assert done.code == 0, done.err
    made = engine(done.path)
    assert made["pretrained_config"]["mapping"]["tp_size"] == 2
    assert made["build_config"]["plugin_config"]["gemm_plugin"] == "float16"
    assert {p.name for p in done.path.iterdir()} == {
        "config.json",
        "rank0.engine",
        "rank1.engine",
        "tokenizer",
    }
    assert (done.path / "tokenizer" / "tokenizer.json").is_file()
    assert "never executed on TensorRT-LLM itself" in done.err, "said when it is built"
    again = bench("fetch", *words, "output=json").json
    assert again["outcome"] == "hit-local"
    assert again["check"]["executed"] is False
    assert "never executed on TensorRT-LLM itself" in again["check"]["why"], "and in the record, of a hit too"
    said = facts(bench, again["key"])
    assert said["build_config"]["max_batch_size"] == 4
    assert said["adjusted"] == {"max_num_tokens": [8192, 1024]}, "what trtllm-build changed is kept"


def test_a_gguf_is_unpacked_first(bench: Bench, tiny_gguf: Path) -> None:
    bench.tools.sees(Path(gguf.__file__).parents[1])
    path = bench.build(f"model.source={tiny_gguf}", "quant=int8")
    config = engine(path)["pretrained_config"]
    assert config["quantization"]["quant_algo"] == "W8A16"
    assert config["max_position_embeddings"] == 128
    assert engine(path)["build_config"]["max_seq_len"] == 128
    shown = bench("plan", f"model.source={tiny_gguf}", "quant=int8", "output=json").json
    assert [step["name"] for step in shown["steps"]] == ["unpack", "checkpoint", "engine"]


def test_plans_explanations_and_hits_need_no_gpu_and_no_tools(bench: Bench) -> None:
    """Elsewhere: no driver, no NVIDIA's tools, a Python that lacks them; the same key, and the same engine."""
    scripts = "compiler.checkpoint_by=scripts"
    words = ["compiler=tensorrt_llm", "target=rtx4070", f"model.source={bench.model}", scripts, "output=json"]
    here = bench("plan", "target=rtx4070", "fleet.driver=550.40.07", "fleet.cuda=12.4", "output=json").json
    fleet = ["fleet.driver=550.40.07", "fleet.cuda='12.4'"]
    there = bench.project.trtbuild("plan", *words, *fleet)
    assert there.code == 0, there.err
    assert there.json["key"] == here["key"]
    assert "this machine has no NVIDIA GPU" in there.json["steps"][1]["obstacle"]
    assert bench.project.trtbuild("fetch", *words, *fleet).code == 3
    refused = bench.project.trtbuild("build", *words[:4], *fleet)
    assert refused.code == 2
    assert "cannot be built on this machine" in refused.err
    bench.build("target=rtx4070", "fleet.driver=550.40.07")
    fetched = bench.project.trtbuild("fetch", *words, *fleet)
    assert fetched.code == 0, fetched.err
    assert fetched.json["key"] == here["key"]


def test_calibrated_schemes_read_a_folder_by_its_content(bench: Bench, dataset: Path) -> None:
    words = ("quant=fp8_kv", f"compiler.calib_dataset={dataset}", "compiler.calib_size=8")
    made = engine(bench.build(*words))["pretrained_config"]["quantization"]
    assert (made["quant_algo"], made["kv_cache_quant_algo"]) == ("FP8", "FP8")
    moved = dataset.rename(dataset.with_name("elsewhere"))
    (moved / ".notes").write_text("of who downloaded it")
    hit = bench("build", "quant=fp8_kv", f"compiler.calib_dataset={moved}", "compiler.calib_size=8", "output=json")
    assert hit.json["outcome"] == "hit-local", "where it lies is not what it is"
    (moved / "train.jsonl").write_text('{"text": "Another sky."}\n')
    plan = bench("plan", "quant=fp8_kv", f"compiler.calib_dataset={moved}", "compiler.calib_size=8", "output=json")
    assert plan.json["steps"][0]["local"] == "miss"
    field = plan.json["steps"][0]["fields"]["compiler.calib_dataset"]
    assert field.startswith("sha256:")
    apart = bench("build", "quant=fp8_kv", f"compiler.calib_dataset={field}", "compiler.calib_size=8")
    assert apart.code == 2
    assert "is elsewhere, and this step reads it" in apart.err


def test_a_checkpoint_serves_several_engines(bench: Bench) -> None:
    bench.build("profile.max_batch_size=4")
    done = bench("build", "profile.max_batch_size=8", "output=json").json
    assert [step["outcome"] for step in done["steps"]] == ["hit-local", "built"]


def test_a_timing_cache_is_learnt_and_used(bench: Bench) -> None:
    first = bench("build", "profile.max_batch_size=4", "output=json")
    second = bench("build", "profile.max_batch_size=8", "output=json")
    logs = [_log(bench, done.json["key"]) for done in (first, second)]
    assert "Invalid timing cache, using freshly created one" in logs[0]
    assert "bytes of timing cache from" in logs[1]
    assert not list(bench.project.root.rglob("model.cache")), "nothing is left in a working directory"
    caches = list((bench.project.store / "v1" / "hints").glob("*/*"))
    assert len(caches) == 1, "the second was learnt from the first, and took its place"
    other = caches[0].with_name(hashlib.sha256(b"of a build beside").hexdigest())
    other.write_bytes(b"of a build beside")
    os.utime(other, (1, 1))  # an older one, which trtllm-build is not given: it joins none
    bench.build("profile.max_batch_size=16")
    assert other.read_bytes() == b"of a build beside"


def _log(bench: Bench, key: str) -> str:
    store = Store.open(bench.project.store)
    record = store.lookup(key)
    assert record is not None
    log = record.attachments["log"]
    with store.open_blob(log.digest, log.size) as file:
        return file.read().decode()


def test_a_stripped_plan_is_refitted(bench: Bench) -> None:
    whole = bench.build()
    done = bench("build", "compiler.strip_plan=true", "output=json").json
    assert [step["name"] for step in done["steps"]] == ["checkpoint", "stripped", "engine"]
    sizes = {step["name"]: step["bytes"] for step in done["steps"]}
    assert sizes["stripped"] < sizes["engine"]
    made = (Path(done["path"]) / "rank0.engine").read_bytes()
    assert made.partition(b"\n")[2] == (whole / "rank0.engine").read_bytes().partition(b"\n")[2], "its weights"


def test_a_refit_on_other_software_says_what_differs(bench: Bench) -> None:
    words = ("compiler.strip_plan=true",)
    bench.build(*words, "until=stripped")
    bench.tools.release("1.2.1", 240)
    done = bench("build", *words)
    assert done.code == 1
    assert "the plan was made by another TensorRT (serialization 239) than the one here (serialization 240)" in done.err
    bench.tools.release("1.2.0")
    assert "a plugin of the plan has other fields" in bench("build", *words).err
    bench.tools.release("1.2.1")
    bench.tools.gpu("8.6")
    assert "the plan is for compute capability 8.9, and this GPU has 8.6" in bench("build", *words).err


def test_the_engine_holds_no_path_of_this_machine_and_is_made_again_the_same(bench: Bench) -> None:
    done = bench("build", "output=json")
    folder = Path(done.json["path"])
    for path in folder.rglob("*"):
        assert not path.is_file() or str(bench.project.root).encode() not in path.read_bytes(), path
    config = bench("rebuild", done.json["key"], "refresh=true", "output=json")
    assert config.code == 0, config.err
    assert config.json["outcome"] == "same", "timing caches change nothing that is kept"


def test_adapters_are_copied_and_known_by_content(bench: Bench, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    words = ("compiler.lora_plugin=auto", f"compiler.lora_dir=['{adapter}']")
    path = bench.build(*words)
    assert (path / "lora" / "0" / "adapter_config.json").is_file()
    (adapter / "adapter_config.json").write_text('{"r": 8}')
    assert bench("plan", *words, "output=json").json["steps"][1]["local"] == "miss"


def test_a_rank_that_is_missing_is_an_error(bench: Bench) -> None:
    bench.tools.drops("rank1.engine")
    words = ("parallel.tp=2", "target.gpus=2")
    done = bench("build", *words)
    assert done.code == 1
    assert "the engine lacks rank1.engine of its 2 ranks" in done.err
    assert not bench.project.leftovers()
    bench.tools.drops("rank1.safetensors")
    shutil.rmtree(bench.project.store / "v1" / "records")
    done = bench("build", *words)
    assert "the checkpoint lacks rank1.safetensors" in done.err


def test_failures_are_told_by_their_cause(bench: Bench) -> None:
    """Recorded logs, from real processes; one is killed as the kernel kills."""
    for name, status, words in (
        ("host_memory", -9, "the host's memory (not the GPU's) is full"),
        ("gpu_memory", 1, "trtllm-build: the GPU ran out of memory"),
    ):
        bench.tools.fails("trtllm-build", HERE / "recorded" / f"{name}.txt", status)
        done = bench("build")
        assert done.code == 1
        assert words in done.err.splitlines()[-1] + done.err
        assert "error: " in done.err
        first = next(line for line in done.err.splitlines() if line.startswith("error:"))
        assert words in first
        assert "timing cache" not in first
        assert "log: " in done.err, "and where the whole log is"
    bench.tools.fails("trtllm-build", None)
    bench.build()


def test_tools_of_another_release_are_refused(bench: Bench) -> None:
    bench.tools.release("1.2.0")
    done = bench("build")
    assert done.code == 1
    assert "TensorRT-LLM 1.2.0 made the engine, and its key says 1.2.1" in done.err
    newer = bench("build", "compiler.version=1.2.0")
    assert newer.code == 2
    assert "tensorrt_llm 1.2.1 is installed" in newer.err


def test_a_python_without_the_tools_is_refused_before_any_work(bench: Bench) -> None:
    done = bench.project.trtbuild("build", "compiler=tensorrt_llm", f"model.source={bench.model}", env=bench.env())
    assert done.code == 2
    assert "lacks what this build needs: " in done.err
    assert "executor=container" in done.err
    assert not bench.project.records()


def test_scripts_that_are_not_there_are_asked_for(bench: Bench) -> None:
    done = bench("build", "executor.env=[]")
    assert done.code == 2
    assert "the wheel of TensorRT-LLM does not hold its scripts" in done.err
    unset = bench("build", "executor.env=[NO_SUCH_VARIABLE]")
    assert unset.code == 2
    assert "NO_SUCH_VARIABLE is not set" in unset.err


def test_an_engine_is_not_run_here(bench: Bench) -> None:
    done = bench("run", "prompt=Hello")
    assert done.code == 2
    assert "NVIDIA's servers do" in done.err
