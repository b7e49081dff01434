"""Compare the time to the identity of a large local model with tools that hash.

usage: python bench/identity_speed.py [--gigabytes 140] [--repeats 1] [--folder .]

The script makes a model with the shapes of a Llama 70B and as many layers as fit into --gigabytes, in shards of 5 GB.
The headers are real. The weights are sparse: they take no room on the disk, and hashing them takes as long as any bytes
except for the disk's own time. Then it runs, alternating and with the page cache dropped: `xargs -P2 sha256sum`,
`xargs -P2 openssl dgst -sha256`, and the real `trtbuild plan` with an empty store. (openssl runs the same code as
Python's hashlib; Debian's sha256sum uses no SHA instructions.) Then it runs the same plan again. `plan` of a
tiny model measures start-up. The script also prints user seconds: on a shared machine they say more than the clock.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from store_speed import machine, timed

HIDDEN, INNER, KV, VOCABULARY = 8192, 28672, 1024, 128256  # Llama 3.1 70B
SHARD = 5 * 10**9  # bytes at most, like the Hub's own shards
HASH_TARGET = 0.8  # of the speed of two parallel sha256sum
PLAN_TARGET = 1.0  # seconds beyond start-up
TRTBUILD = Path(sys.executable).with_name("trtbuild")


def config(layers: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "vocab_size": VOCABULARY,
        "bos_token_id": 128000,
        "eos_token_id": 128001,
        "torch_dtype": "bfloat16",
    }


def shapes(layers: int) -> Iterable[tuple[str, list[int]]]:
    yield "model.embed_tokens.weight", [VOCABULARY, HIDDEN]
    for layer in range(layers):
        for name, shape in (
            ("input_layernorm", [HIDDEN]),
            ("post_attention_layernorm", [HIDDEN]),
            ("self_attn.q_proj", [HIDDEN, HIDDEN]),
            ("self_attn.k_proj", [KV, HIDDEN]),
            ("self_attn.v_proj", [KV, HIDDEN]),
            ("self_attn.o_proj", [HIDDEN, HIDDEN]),
            ("mlp.gate_proj", [INNER, HIDDEN]),
            ("mlp.up_proj", [INNER, HIDDEN]),
            ("mlp.down_proj", [HIDDEN, INNER]),
        ):
            yield f"model.layers.{layer}.{name}.weight", shape
    yield "model.norm.weight", [HIDDEN]
    yield "lm_head.weight", [VOCABULARY, HIDDEN]


def layers_for(size: int) -> int:
    """Return how many layers bring the checkpoint to about `size` bytes, at least one."""
    none, one = (sum(2 * math.prod(shape) for _, shape in shapes(layers)) for layers in (0, 1))
    return max(1, round((size - none) / (one - none)))


def write_model(folder: Path, layers: int) -> list[Path]:
    """Write the checkpoint's files, with sparse weights."""
    shards: list[dict[str, object]] = []
    full = SHARD
    for name, shape in shapes(layers):
        size = 2 * math.prod(shape)
        if full + size > SHARD:
            shards.append({})
            full = 0
        shards[-1][name] = {"dtype": "BF16", "shape": shape, "data_offsets": [full, full + size]}
        full += size
    placed: dict[str, str] = {}
    paths = []
    for number, header in enumerate(shards, 1):
        path = folder / f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(file.tell() + max(entry["data_offsets"][1] for entry in header.values()))
        placed |= dict.fromkeys(header, path.name)
        paths.append(path)
    index = {"metadata": {"total_size": sum(p.stat().st_size for p in paths)}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config(layers)))
    return paths


def write_tiny(folder: Path) -> Path:
    """Write a model so small that `plan` takes no time to hash it."""
    text = json.dumps({"a": {"dtype": "U8", "shape": [8], "data_offsets": [0, 8]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    (folder / "config.json").write_text(json.dumps(config(1)))
    return folder


def forget(paths: Sequence[Path]) -> None:
    """Drop the files' pages from the cache."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def plan(model: Path, store: Path) -> str:
    command = [TRTBUILD, "plan", f"model.source={model}", f"store.root={store}", "output=json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["key"]


def two_at_a_time(paths: Sequence[Path], *command: str) -> None:
    names = "\0".join(map(str, paths)).encode()
    subprocess.run(["xargs", "-0", "-P2", "-n1", *command], input=names, check=True, stdout=subprocess.DEVNULL)


def measure(paths: Sequence[Path], root: Path, tiny: Path, repeats: int) -> bool:
    model, size = paths[0].parent, sum(path.stat().st_size for path in paths)
    times: dict[str, list[float]] = {"sha256sum": [], "openssl": [], "cold": [], "warm": [], "start": []}
    user: dict[str, list[float]] = {name: [] for name in ("sha256sum", "openssl", "cold")}
    for repeat in range(repeats):
        store = root / f"store.{repeat}"
        for name, work in (
            ("sha256sum", lambda: two_at_a_time(paths, "sha256sum")),
            ("openssl", lambda: two_at_a_time(paths, "openssl", "dgst", "-sha256")),
            ("cold", lambda store=store: plan(model, store)),
        ):
            forget(paths)
            before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
            times[name].append(timed(work))
            user[name].append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before)
            load = os.getloadavg()[0]
            print(f"{name:12} {times[name][-1]:8.2f} s, load {load:.1f}", flush=True)
        plan(tiny, store)
        for _ in range(5):
            times["warm"].append(timed(lambda store=store: plan(model, store)))
            times["start"].append(timed(lambda store=store: plan(tiny, store)))
    middle = {name: statistics.median(found) for name, found in times.items()}
    for name, words in (
        ("sha256sum", "xargs -P2 sha256sum"),
        ("openssl", "xargs -P2 openssl dgst -sha256"),
        ("cold", "trtbuild plan, the first"),
    ):
        rate = size / middle[name] / 1e9
        ratio = middle["sha256sum"] / middle[name]
        cpu = statistics.median(user[name])
        print(f"{words:34} {middle[name]:8.2f} s {rate:7.2f} GB/s {ratio:7.2f} x sha256sum {cpu:8.2f} s of user time")
    beyond = middle["warm"] - middle["start"]
    print(f"{'trtbuild plan, again':34} {middle['warm']:8.2f} s")
    print(f"{'trtbuild plan of a tiny model':34} {middle['start']:8.2f} s, so {beyond:.2f} s beyond start-up")
    return middle["sha256sum"] / middle["cold"] >= HASH_TARGET and beyond < PLAN_TARGET


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=140)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path(), help="where to work: needs a file system with holes")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix=".identity-speed-", dir=asked.folder) as scratch:
        root = Path(scratch).resolve()
        for name in ("model", "tiny"):
            (root / name).mkdir()
        layers = layers_for(int(asked.gigabytes * 1e9))
        paths = write_model(root / "model", layers)
        size = sum(path.stat().st_size for path in paths)
        print(f"{machine(root)}\nload {os.getloadavg()[0]:.1f} at the start")
        print(f"{size / 1e9:.1f} GB in {len(paths)} shards, {layers} layers; repeats: {asked.repeats}\n")
        reached = measure(paths, root, write_tiny(root / "tiny"), asked.repeats)
        print(f"load {os.getloadavg()[0]:.1f} at the end")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
