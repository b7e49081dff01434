"""Tokens to text, for Triton's Python backend. Written by trtbuild beside the engine that it serves.

The first SEQUENCE_LENGTH [batch, beams] tokens of TOKENS_BATCH [batch, beams, tokens] become OUTPUT [batch, beams].
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton
from tokenizers import Tokenizer


class TritonPythonModel:
    """The class that Triton runs: `initialize` once, `execute` for each batch of requests."""

    def initialize(self, args: Mapping[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        folder = Path(parameters["tokenizer_dir"]["string_value"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def execute(self, requests: Iterable[Any]) -> list[Any]:
        responses = []
        for request in requests:
            tokens, lengths = (
                triton.get_input_tensor_by_name(request, name).as_numpy()
                for name in ("TOKENS_BATCH", "SEQUENCE_LENGTH")
            )
            texts = np.empty(lengths.shape, np.object_)
            for at, length in np.ndenumerate(lengths):
                ids = tokens[at][:length].tolist()
                texts[at] = self.tokenizer.decode(ids, skip_special_tokens=True).encode("utf-8")
            responses.append(triton.InferenceResponse(output_tensors=[triton.Tensor("OUTPUT", texts)]))
        return responses
