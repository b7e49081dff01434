"""The worker of `checkpoint` by ModelOpt: `python -m trtbuild.compilers.tensorrt_llm.modelopt_checkpoint`."""

from __future__ import annotations

import importlib
import tempfile
from pathlib import Path
from typing import Any

from trtbuild import untrusted
from trtbuild.compilers.modelopt import exclusions
from trtbuild.compilers.modelopt.options import bind_instruction_set
from trtbuild.compilers.modelopt.schemes import scheme_of
from trtbuild.compilers.tensorrt_llm import modelopt_schemes, rules
from trtbuild.networks.weights import as_transformers
from trtbuild.worker import Reporter, StepRequest, serve


def run(request: StepRequest, out: Path, reporter: Reporter) -> dict[str, Any]:
    """Check the model, and write its checkpoint to `out` by `modelopt_run.run`. Raises InputError, BuildError."""
    facts = request.options
    source = request.folder(Path(tempfile.gettempdir()))
    config = untrusted.read_object(source / "config.json")
    scheme = scheme_of(facts, modelopt_schemes.SCHEMES)
    modelopt_schemes.check_model(config)
    tp, pp = int(facts["parallel.tp"]), int(facts["parallel.pp"])
    rules.check_shapes(config, rules.Ranks(tp, pp, 1), scheme.grouped, facts.get("quant.group_size"))
    modelopt_schemes.check_ranks(config, scheme, tp, pp)
    modelopt_schemes.check_excluded(exclusions.read(facts), config, scheme, "none", pp)
    as_transformers.check_folder(source)
    bind_instruction_set(facts.get("compiler.calib_level"))
    record: dict[str, Any] = importlib.import_module("trtbuild.compilers.tensorrt_llm.modelopt_run").run(
        request, source, config, out, reporter
    )
    return record


if __name__ == "__main__":
    serve("trtbuild.compilers.tensorrt_llm.modelopt_checkpoint:run")
