"""The network of an architecture that this package lacks, made by onnxruntime-genai's own model builder.

The builder needs torch, transformers and onnx-ir, and runs apart: `onnxruntime_genai.models.builder`.
It is given float32 for CPUs, so that quantizing and optimising stay the engine step's, whatever made the graph.
`families` says which models it gets right; what it misreads of those is mended here, before and after.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnx import helper, load_model

from trtbuild import untrusted
from trtbuild.errors import BuildError, InputError
from trtbuild.networks.chat import files as chat_files
from trtbuild.networks.chat.template import ChatSettings
from trtbuild.networks.config.architectures import architecture_of
from trtbuild.networks.genai import config as genai_config
from trtbuild.networks.genai import families
from trtbuild.networks.tokenizer import convert
from trtbuild.networks.weights.checkpoint import Checkpoint, read_json
from trtbuild.processes import programs
from trtbuild.worker import Reporter, StepRequest

#: Runs the builder with these arguments, in this folder; returns its exit code and its output, errors included.
Start = Callable[[Sequence[str], Path], tuple[int, str]]

_LINES = 8  # of the builder's output in an error
_NEEDED = ("model.onnx", "model.onnx.data", "genai_config.json")
_CONFIG = "config.json"
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "warning"}
_PACKAGES = ("onnxruntime-genai", "transformers", "torch", "onnx-ir")
# The last line of a Python traceback: an exception's name, with its module's, and what it says.
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:: .*)?")
# A row of the table in which transformers tells of tensors; braces join those that differ in a number alone.
_REPORTED = re.compile(r"(\S.*?) +\| (UNEXPECTED|MISSING|MISMATCH|CONVERSION)\b.*")


def start(arguments: Sequence[str], folder: Path) -> tuple[int, str]:
    """The builder as a process of its own, offline: it would ask the Hub about a folder that it has been given."""
    done = subprocess.run(
        programs.module(sys.executable, "onnxruntime_genai.models.builder", *arguments),
        env=programs.inherited() | _ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        cwd=folder,
    )
    return done.returncode, done.stdout.decode(errors="replace")


def run(request: StepRequest, out: Path, reporter: Reporter, build: Start = start) -> dict[str, Any]:
    """Write the network of `request.model` to the folder `out`; returns what it is, for the manifest.

    Raises InputError for a checkpoint that the builder cannot read or gets wrong, BuildError when it fails.
    """
    config = _readable(request.model)
    families.check(config)
    reporter.progress("builder", 0, 1, "step")
    out = out.absolute()
    with tempfile.TemporaryDirectory(prefix="builder-", dir=out.parent) as scratch:
        folder, speech = Path(scratch) / "model", Path(scratch) / "speech"
        speech.mkdir()
        chats = _speech(request.model, speech)
        _lay_out(request.model, config, folder)
        # Windowed layers keep all keys: the smaller caches would refuse answers shorter than the window.
        options = ["--extra_options", "windowed_kv_cache=false"]
        arguments = ["-i", folder, "-o", out, "-p", "fp32", "-e", "cpu", "-c", Path(scratch) / "cache"]
        code, output = build([*map(str, arguments), *options], out.parent)
        sys.stderr.write(output)  # the step's log
        if code:
            raise _failure(code, output)
        _refuse_made_up(output)
        for name in _NEEDED:
            if not (out / name).is_file():
                raise BuildError(f"onnxruntime-genai's builder made no {name}")
        _settle_scale(out / "model.onnx", families.embedding_scale(config))
        context = _settle_context(out / "genai_config.json", families.longest(config))
        _put_speech(speech, chats.settled, out)
    reporter.progress("builder", 1, 1, "step")
    return _facts(architecture_of(config), out, context) | dict(chats.facts)


def _readable(files: Mapping[str, Path]) -> Mapping[str, Any]:
    """The parsed config.json of a checkpoint in safetensors. Raises InputError for any other."""
    weights = any(name.endswith(".safetensors") for name in files)
    if not weights and any(name.endswith(".gguf") for name in files):
        raise InputError(
            "onnxruntime-genai's builder reads a checkpoint's safetensors, and this is a GGUF file",
            option="model.source",
            hint="name the model's safetensors repository or folder",
        )
    if _CONFIG not in files:
        raise InputError("the checkpoint has no config.json", option="model.source")
    if not weights:
        raise InputError(
            "the checkpoint has no .safetensors file, and weights are read from these alone",
            option="model.source",
            hint="transformers writes them: AutoModelForCausalLM.from_pretrained(FOLDER).save_pretrained(FOLDER)",
        )
    return read_json(files, _CONFIG)


def _lay_out(files: Mapping[str, Path], config: Mapping[str, Any], folder: Path) -> None:
    """The checkpoint as the builder is shown it: links, and a config.json with what it needs besides."""
    more = families.given(config)
    for name, path in files.items():
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if name == _CONFIG and more:
            link.write_text(json.dumps({**config, **more}), encoding="utf-8")
        else:
            link.symlink_to(path.absolute())


def _speech(files: Mapping[str, Path], folder: Path) -> chat_files.Written:
    """Write how the model is spoken to, as on the native path, before the builder's minutes. Raises InputError."""
    checkpoint = Checkpoint.open(files)
    for name in (_CONFIG, "generation_config.json"):
        if name in files:
            read_json(files, name)
            (folder / name).write_bytes(files[name].read_bytes())
    # It needs onnxruntime-genai, which is not there where networks are made for other runtimes.
    tokens = importlib.import_module("trtbuild.networks.tokenizer.tokens")
    original = convert.write(checkpoint, folder)
    tokens.say(folder)
    chats = chat_files.write(files, checkpoint.config, None, folder, genai=True)
    tokens.check(folder, original)
    return chats


def _put_speech(speech: Path, settled: ChatSettings, out: Path) -> None:
    """Replace what the builder wrote besides the network: transformers had read and saved the tokenizer anew."""
    for path in list(out.iterdir()):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in _NEEDED:
            path.unlink()
    for path in speech.iterdir():
        shutil.copyfile(path, out / path.name)
    genai_config.put_tokens(out, settled)


def _failure(code: int, output: str) -> BuildError:
    """The error for a builder that failed: the exception's own line leads, the last lines are the details."""
    lines = [line.rstrip() for line in output.splitlines() if line.strip()]
    return BuildError(
        f"onnxruntime-genai's model builder failed: {headline(lines) or f'exit code {code}'}",
        option="network.frontend",
        hint="the step's log has all that it said",
        details=lines[-_LINES:],
    )


def _refuse_made_up(output: str) -> None:
    """Raises InputError where transformers said that it filled tensors with random numbers of its own."""
    told = [match.groups() for match in map(_REPORTED.fullmatch, output.splitlines()) if match]
    made_up = [name for name, status in told if status != "UNEXPECTED"]
    if made_up:
        more = f" and {len(made_up) - 1} more" if len(made_up) > 1 else ""
        raise InputError(
            f"the checkpoint lacks the tensor {made_up[0]}{more}, or has it in another shape",
            option="model.source",
            hint="is it complete, and does its config.json belong to it?",
        )


def headline(lines: Sequence[str]) -> str | None:
    """The line of the exception that ended a Python program, from its output; else the last line, None without one.

    Warnings and progress bars may follow a traceback, or stand after its last line.
    """
    traces = [at for at, line in enumerate(lines) if line.startswith("Traceback (most recent call last)")]
    for line in lines[traces[-1] + 1 :] if traces else ():
        if _EXCEPTION.fullmatch(line):
            return line
    return lines[-1] if lines else None


def _settle_scale(path: Path, scale: float | None) -> None:
    """Multiply embeddings by `scale` exactly: the builder rounds it to two decimals, as bfloat16 would more."""
    if scale is None:
        return
    model = load_model(path, load_external_data=False)
    for at, node in enumerate(model.graph.node):
        if node.name == "/model/embed_tokens/Mul":
            name = "/model/embed_tokens/scale"
            node.input[1] = name
            model.graph.node.insert(at, helper.make_node("Constant", [], [name], name=name, value_float=scale))
            path.write_bytes(model.SerializeToString(deterministic=True))
            return
    raise BuildError("onnxruntime-genai's builder scales the embeddings nowhere, and this model's are scaled")


def _settle_context(path: Path, longest: int | None) -> int:
    """Limit the engine's context to `longest` tokens, where it is not right beyond; returns the context."""
    config = untrusted.read_object(path)
    if longest is not None:
        config["model"]["context_length"] = config["search"]["max_length"] = longest
        path.write_text(json.dumps(config, indent=4) + "\n", encoding="utf-8")
    return int(config["model"]["context_length"])


def _facts(architecture: str, out: Path, context: int) -> dict[str, Any]:
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "architecture": architecture,
        "bytes": sum((out / name).stat().st_size for name in _NEEDED[:2]),
        "operators": "fused",
        "dtype": "float32",
        "context": context,
        "builder": versions,
        "proof": f"trtbuild's tests compare a tiny {architecture} from this builder with transformers, not this model",
    }
