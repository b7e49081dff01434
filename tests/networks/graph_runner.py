"""Emits a checkpoint and runs the graph in ONNX Runtime, cache and mask as a host would keep them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime

from trtbuild.networks.config.architectures import parse
from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.onnx_graph.emit import check, emit
from trtbuild.networks.weights.checkpoint import Checkpoint


def write_network(files: Mapping[str, Path], folder: Path, operators: str, dtype: str = "float32") -> Decoder:
    """Emit the checkpoint to folder/model.onnx as the step does."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = Checkpoint.open(files)
    decoder = parse(checkpoint.config)
    check(checkpoint, decoder, operators)
    emit(checkpoint, decoder, operators, np.dtype(dtype), folder / "model.onnx", lambda *_: None)
    return decoder


class Network:
    """One sequence (or a batch of equal lengths) through an emitted graph, step by step."""

    def __init__(
        self,
        decoder: Decoder,
        folder: Path,
        operators: str,
        dtype: str = "float32",
        *,
        as_written: bool = False,
    ) -> None:
        options = onnxruntime.SessionOptions()
        if as_written:  # ONNX Runtime multiplies by dequantized weights in int8 where it may
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self.decoder, self.operators, self.dtype = decoder, operators, np.dtype(dtype)
        self.past: dict[str, np.ndarray] = {}
        self.length = 0

    def step(self, ids: np.ndarray) -> np.ndarray:
        """Logits [batch, sequence, vocab] of `ids` [batch, sequence], which follow what came before."""
        batch, count = ids.shape
        if not self.past:
            d = self.decoder
            self.past = {
                f"{layer}.{kind}": np.zeros((batch, d.kv_heads, 0, d.head_dim), self.dtype)
                for layer in range(d.layers)
                for kind in ("key", "value")
            }
        feeds = {"input_ids": ids.astype(np.int64 if self.operators == "fused" else np.int32)}
        feeds |= {f"past_key_values.{name}": value for name, value in self.past.items()}
        total = self.length + count
        if self.operators == "fused":
            feeds["attention_mask"] = np.ones((batch, total), np.int64)
        else:
            feeds["position_ids"] = np.tile(np.arange(self.length, total, dtype=np.int32), (batch, 1))
            feeds["attention_bias"] = np.tile(self._bias(total), (batch, 1, 1, 1))
        names = [output.name for output in self.session.get_outputs()]
        results = dict(zip(names, self.session.run(names, feeds), strict=True))
        for name, before in self.past.items():
            if self.operators == "fused":
                self.past[name] = results[f"present.{name}"]
            else:
                self.past[name] = np.concatenate([before, results[f"new.{name}"]], axis=2)
        self.length = total
        return results["logits"]

    def _bias(self, total: int) -> np.ndarray:
        query = np.arange(self.length, total)[:, None]
        key = np.arange(total)[None]
        seen = key <= query
        if self.decoder.sliding_window:
            seen &= query - key < self.decoder.sliding_window
        return np.where(seen, 0, -3e4).astype(self.dtype)[None, None]
