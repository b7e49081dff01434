"""The walk through a decoder's layers that both operator sets share, and the weights that it names.

A flavour (`fused`, `standard`) says how to embed, normalise, attend and end; the walk says in which order.
Weights of linear maps are written [in, out], as ONNX's MatMul takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.onnx_graph import rope
from trtbuild.networks.onnx_graph.writer import Graph, Weight
from trtbuild.networks.weights.arrays import Array
from trtbuild.networks.weights.checkpoint import Checkpoint


class GraphWeights:
    """Names the checkpoint's tensors in the graph; their values are read when the file is written."""

    def __init__(self, graph: Graph, decoder: Decoder, checkpoint: Checkpoint) -> None:
        self.graph, self.decoder, self._checkpoint = graph, decoder, checkpoint
        self._tables: tuple[Array, Array] | None = None

    def vector(self, module: str, kind: str = "weight") -> str:
        """A norm's weight or a bias, under its Hugging Face name."""
        return self._named(f"{module}.{kind}", (f"{module}.{kind}",))

    def twice(self, module: str) -> str:
        """A norm's weight, two times one after the other."""
        return self._named(f"{module}.weight.twice", [f"{module}.weight"] * 2)

    def size(self, module: str) -> int:
        """Elements of a norm's weight."""
        return self._checkpoint.shape(f"{module}.weight")[0]

    def rows(self, module: str) -> str:
        """A matrix as it is stored: [out, in], or the embedding [vocab, hidden]."""
        return self._named(f"{module}.weight", (f"{module}.weight",))

    def linear(self, name: str, modules: Sequence[str]) -> str:
        """`name`.MatMul.weight, [in, out]: the weights of `modules` side by side."""
        return self._named(f"{name}.MatMul.weight", [f"{module}.weight" for module in modules], matmul=True)

    def biases(self, name: str, modules: Sequence[str]) -> str:
        """`name`.Add.bias, [out]: the biases of `modules` one after the other."""
        return self._named(f"{name}.Add.bias", [f"{module}.bias" for module in modules])

    def rotary(self) -> tuple[str, str]:
        """cos_cache and sin_cache, each [max_positions, head_dim / 2]."""
        shape = (self.decoder.max_positions, self.decoder.head_dim // 2)
        cosine = Weight("cos_cache", shape, lambda: self._table(0), "the cosine table")
        sine = Weight("sin_cache", shape, lambda: self._table(1), "the sine table")
        return self.graph.weight(cosine), self.graph.weight(sine)

    def _named(self, name: str, sources: Sequence[str], *, matmul: bool = False) -> str:
        shapes = [self._checkpoint.shape(source) for source in sources]
        shape: tuple[int, ...] = (sum(each[0] for each in shapes), *shapes[0][1:])
        shape = shape[::-1] if matmul else shape

        def load() -> Array:
            parts = [self._checkpoint.read(source) for source in sources]
            whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
            return whole.T if matmul else whole

        return self.graph.weight(Weight(name, shape, load, " and ".join(sources)))

    def _table(self, which: int) -> Array:
        if self._tables is None:
            d = self.decoder
            self._tables = rope.tables(d.rope, d.head_dim, d.max_positions, self.graph.dtype)
        table = self._tables[which]
        if which == 1:
            self._tables = None  # the cosine is written first: both are through
        return table


class Flavour(Protocol):
    """How one set of operators says the parts of a decoder. Values are named [batch, sequence, …]."""

    graph: Graph
    weights: GraphWeights

    def embed(self) -> str:
        """Declare the inputs; returns the embedded tokens, [batch, sequence, hidden]."""

    def norm(self, value: str, module: str, name: str) -> str:
        """RMSNorm over the last axis with the weight of `module`."""

    def add_norm(self, residual: str, value: str, module: str, name: str) -> tuple[str, str]:
        """RMSNorm of residual + value, and that sum."""

    def attention(self, layer: int, value: str) -> str:
        """Grouped-query attention up to, not including, the output projection: [batch, sequence, q]."""

    def head(self, value: str) -> None:
        """Declare the outputs: logits of every position, [batch, sequence, vocab], and keys and values."""


def linear(flavour: Flavour, value: str, name: str, modules: Sequence[str], *, bias: bool) -> str:
    """value @ weight (+ bias) for `modules` side by side, as the nodes /`name`/MatMul and /`name`/Add."""
    graph, weights, node = flavour.graph, flavour.weights, "/" + name.replace(".layers.", ".layers_")
    node = node.replace(".", "/").replace("layers_", "layers.")
    result = graph.op("MatMul", [value, weights.linear(name, modules)], f"{node}/MatMul")
    return graph.op("Add", [result, weights.biases(name, modules)], f"{node}/Add") if bias else result


def build(flavour: Flavour, decoder: Decoder) -> None:
    """Add the whole decoder to the flavour's graph."""
    hidden = flavour.embed()
    value = flavour.norm(hidden, "model.layers.0.input_layernorm", "/model/layers.0/input_layernorm")
    for layer in range(decoder.layers):
        prefix, node = f"model.layers.{layer}", f"/model/layers.{layer}"
        value = flavour.attention(layer, value)
        out = f"{prefix}.self_attn.o_proj"
        value = linear(flavour, value, out, [out], bias=decoder.output_bias)
        after = "post_attention_layernorm"
        value, hidden = flavour.add_norm(hidden, value, f"{prefix}.{after}", f"{node}/{after}")
        value = _feed_forward(flavour, decoder, f"{prefix}.mlp", f"{node}/mlp", value)
        last = layer == decoder.layers - 1
        following = "model.norm" if last else f"model.layers.{layer + 1}.input_layernorm"
        place = "/model/norm" if last else f"/model/layers.{layer + 1}/input_layernorm"
        value, hidden = flavour.add_norm(hidden, value, following, place)
    flavour.head(value)


def _feed_forward(flavour: Flavour, decoder: Decoder, module: str, node: str, value: str) -> str:
    """down(silu(gate(x)) * up(x)); both runtimes fuse the sigmoid and its product."""
    graph, bias = flavour.graph, decoder.mlp_bias
    gate = linear(flavour, value, f"{module}.gate_proj", [f"{module}.gate_proj"], bias=bias)
    up = linear(flavour, value, f"{module}.up_proj", [f"{module}.up_proj"], bias=bias)
    active = graph.op("Mul", [gate, graph.op("Sigmoid", [gate], f"{node}/Sigmoid")], f"{node}/SiLU")
    product = graph.op("Mul", [active, up], f"{node}/Mul")
    return linear(flavour, product, f"{module}.down_proj", [f"{module}.down_proj"], bias=bias)
