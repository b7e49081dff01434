"""Tiny models that transformers saves, their networks from onnxruntime-genai's builder, and both sides' logits."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tests.compilers.support import make_engine, request
from tests.support import tiny
from trtbuild.networks.genai import builder as genai_builder
from trtbuild.worker import Reporter

# Runs the builder's module for each line of arguments, folder and log: torch is imported once for all of them.
_SERVER = """
import json, os, runpy, sys, traceback
answers = os.fdopen(os.dup(1), "w")
for line in sys.stdin:
    arguments, folder, log = json.loads(line)
    stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    os.close(stream)
    os.chdir(folder)
    sys.argv[1:] = arguments
    code = 0
    try:
        runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__", alter_sys=True)
    except Exception:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    print(code, file=answers, flush=True)
"""


@contextmanager
def builder(scratch: Path) -> Iterator[genai_builder.Start]:
    """What starts the builder with torch imported already: an import takes fifty times as long as a tiny model."""
    command = [sys.executable, "-P", "-c", _SERVER]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None
    log = scratch / "log"

    def start(arguments: Sequence[str], folder: Path) -> tuple[int, str]:
        server.stdin.write(json.dumps([list(arguments), str(folder), str(log)]) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return code, log.read_text(errors="replace")

    yield start
    server.stdin.close()
    assert server.wait(60) == 0


def save(architecture: str, folder: Path, *, seed: int = 0, **switches: Any) -> Path:
    """A model of two layers with random weights, norms and biases, saved by transformers, with a tokenizer."""
    import torch  # noqa: PLC0415
    import transformers  # noqa: PLC0415

    model_class = getattr(transformers, architecture)
    sizes = {"vocab_size": tiny.VOCAB, "hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    tokens = {"bos_token_id": tiny.BOS, "eos_token_id": tiny.EOS, "pad_token_id": 258}
    torch.manual_seed(seed)
    model = model_class(model_class.config_class(**(sizes | heads | tokens | switches))).float()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 1.5 / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tiny.write_tokenizer(folder)
    return folder


def change(folder: Path, **fields: Any) -> Path:
    """`folder` with other fields in its config.json, None for one that is not there."""
    config = json.loads((folder / "config.json").read_text()) | fields
    kept = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(kept))
    return folder


def build(folder: Path, out: Path, start: genai_builder.Start = genai_builder.start) -> dict[str, Any]:
    """The network step on the files of `folder`; returns its facts."""
    out.mkdir(parents=True)
    files = {path.name: path for path in folder.iterdir()}
    return genai_builder.run(request({}, files), out, Reporter(io.StringIO()), start)


def engine_of(model: Path, folder: Path, start: genai_builder.Start, **options: Any) -> Path:
    """The engine of `model` in the folder `engine` of `folder`."""
    build(model, folder / "network", start)
    make_engine(folder / "network", folder / "engine", **options)
    return folder / "engine"


def wanted(model: Path, ids: list[int]) -> np.ndarray:
    """Logits [tokens, vocabulary] of transformers in float32; eager, as its other attentions leave soft caps out."""
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        return np.asarray(loaded(torch.tensor([ids])).logits[0].numpy())


class Running:
    """An engine in onnxruntime, which is given tokens and keeps what they leave behind."""

    def __init__(self, engine: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(engine / "model.onnx", options, providers=["CPUExecutionProvider"])
        decoder = json.loads((engine / "genai_config.json").read_text())["model"]["decoder"]
        sizes = {"batch_size": 1, "kv_cache_dim": decoder["head_size"]}
        self.seen = 0
        self.state = {
            value.name: np.zeros([sizes.get(n, 0) if isinstance(n, str) else n for n in value.shape], np.float32)
            for value in self.session.get_inputs()
            if value.name.startswith("past")
        }

    def logits(self, ids: list[int]) -> np.ndarray:
        """[tokens, vocabulary] of these tokens, after all that were given before."""
        first, self.seen = self.seen, self.seen + len(ids)
        feed = {
            "input_ids": np.array([ids]),
            "attention_mask": np.ones((1, self.seen), np.int64),
            "position_ids": np.arange(first, self.seen)[None],
        }
        taken = {value.name for value in self.session.get_inputs()}
        feed = {name: value for name, value in feed.items() if name in taken}
        names = [value.name for value in self.session.get_outputs()]
        got = dict(zip(names, self.session.run(names, feed | self.state), strict=True))
        for name in self.state:
            self.state[name] = got[name.replace("past_key_values.", "present.").replace("past.", "present.")]
        return np.asarray(got["logits"][0])


def difference(engine: Path, ids: list[int], expected: np.ndarray, prompt: int) -> float:
    """The largest difference of any logit: all tokens at once, and a prompt followed by single tokens.

    Relative to the largest of `expected`.
    """
    steps = Running(engine)
    rows = [steps.logits(ids[:prompt]), *(steps.logits([token]) for token in ids[prompt:])]
    worst = max(np.abs(got - expected).max() for got in (Running(engine).logits(ids), np.concatenate(rows)))
    return float(worst / np.abs(expected).max())
