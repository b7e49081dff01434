"""`python -m tests.reference.trtllm_checkpoints SOURCE OUT CASES`: checkpoints for TensorRT-LLM, in one process.

It runs in the environment of the toolchain `modelopt_trtllm`, whose transformers no other environment here can have,
and which takes a quarter of a minute to import: so one process makes all cases, a JSON list of objects with `name`,
`parts` (of quant), `tp`, `pp` and options of the step. It prints their facts, or their errors, as JSON.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

from trtbuild.compilers.tensorrt_llm import modelopt_checkpoint
from trtbuild.errors import BuildError, InputError
from trtbuild.worker import Reporter, StepRequest


def made(source: Path, out: Path, case: dict[str, Any]) -> dict[str, Any]:
    names = ("quant.weights", "quant.activations", "quant.method", "quant.kv_cache")
    facts = dict(zip(names, case["parts"], strict=True)) | {
        "model.dtype": "float16",
        "quant.group_size": None,
        "parallel.tp": case["tp"],
        "parallel.pp": case["pp"],
        "compiler.calib_device": "cpu",
        "compiler.calib_level": "x86_64_v3",
        "compiler.threads": 1,
        "compiler.calib_size": 2,
        "compiler.calib_batch_size": 1,
        "compiler.calib_max_seq_length": 24,
        **case.get("options", {}),
    }
    out.mkdir(parents=True)
    request = StepRequest("checkpoint", facts, {}, {"unpack": Path(case.get("source", source))}, {}, None)
    try:
        return modelopt_checkpoint.run(request, out, Reporter(io.StringIO()))
    except (InputError, BuildError) as error:
        return {"error": f"{error.option or ''}: {error.message}"}


def main(source: Path, out: Path, cases: list[dict[str, Any]]) -> None:
    with contextlib.redirect_stdout(sys.stderr):
        found = {case["name"]: made(source, out / case["name"], case) for case in cases}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
