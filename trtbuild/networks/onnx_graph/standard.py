"""The decoder in standard ONNX operators, for compilers such as TensorRT that know no others.

    input_ids, position_ids [batch, sequence] int32      logits [batch, sequence, vocab]
    attention_bias [batch, 1, sequence, past + sequence] in the graph's type: added to the scores,
        0 where a token may look and a large negative number where it may not; causality, padding and a
        sliding window are the host's to put in
    past_key_values.{l}.key|value [batch, kv_heads, past, head_dim]
                                                         new.{l}.key|value [batch, kv_heads, sequence, head_dim]

Only the new keys (rotated) and values come out: the host writes them to their slots, which spares a copy of
the whole cache at each step. RMSNorm is computed in float32, as squares of the residual stream overflow
float16. The queries of a group are folded into the rows of one 4-D MatMul, so no key is repeated.

A tied head is stored once, as the embedding [vocab, hidden], and the last MatMul takes its transpose: TensorRT
then keeps one copy.

`LayerNormed` is the same for builders that choose each layer's type themselves (TensorRT before 9.1): an RMSNorm
of single operators overflows there, whatever its types say, and held to float32 no kernel is found for all layers.
The LayerNormalization of [x, -x], whose mean is 0 and whose variance is the mean of x squared, is exactly RMSNorm,
and is one layer that computes in float32.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.onnx_graph.skeleton import GraphWeights, linear
from trtbuild.networks.onnx_graph.writer import Graph

# As old as it goes: TensorRT 8.6 knows no later opset, and no 64-bit inputs. A quantizer may raise it.
OPSETS = (("", 17),)
IR_VERSION = 8


class Standard:
    """Adds a decoder's parts to `graph` (a `skeleton.Flavour`)."""

    def __init__(self, graph: Graph, decoder: Decoder, weights: GraphWeights) -> None:
        self.graph, self.weights, self._decoder = graph, weights, decoder
        self._cosine = self._sine = self._bias = ""

    def embed(self) -> str:
        graph, d = self.graph, self._decoder
        for name in ("input_ids", "position_ids"):
            graph.input(name, ["batch", "sequence"], TensorProto.INT32)
        graph.input("attention_bias", ["batch", 1, "sequence", "total"])
        for layer in range(d.layers):
            for kind in ("key", "value"):
                graph.input(f"past_key_values.{layer}.{kind}", ["batch", d.kv_heads, "past", d.head_dim])
        cosine, sine = self.weights.rotary()
        self._cosine, self._sine = self._at_positions(cosine, "cos"), self._at_positions(sine, "sin")
        # Rows of the folded scores are (query of the group, position): the same bias for each query.
        group = d.heads // d.kv_heads
        self._bias = graph.op("Concat", ["attention_bias"] * group, "/model/attention_bias", axis=2)
        table = self.weights.rows("model.embed_tokens")
        return graph.op("Gather", [table, "input_ids"], "/model/embed_tokens/Gather")

    def _at_positions(self, table: str, name: str) -> str:
        """[batch, 1, 1, sequence, head_dim / 2], to go with [batch, kv_heads, group, sequence, …]."""
        graph = self.graph
        rows = graph.op("Gather", [table, "position_ids"], f"/model/rotary/{name}/Gather")
        return graph.op("Unsqueeze", [rows, graph.integers(1, 2)], f"/model/rotary/{name}/Unsqueeze")

    def norm(self, value: str, module: str, name: str) -> str:
        graph, half = self.graph, self.graph.dtype != np.float32
        wide = graph.op("Cast", [value], f"{name}/float32", to=TensorProto.FLOAT) if half else value
        square = graph.op("Mul", [wide, wide], f"{name}/square")
        mean = graph.op("ReduceMean", [square], f"{name}/mean", axes=[-1], keepdims=1)
        epsilon = graph.constant(np.array(self._decoder.norm_eps, dtype=np.float32))
        root = graph.op("Sqrt", [graph.op("Add", [mean, epsilon], f"{name}/epsilon")], f"{name}/root")
        unit = graph.op("Div", [wide, root], f"{name}/unit")
        unit = graph.op("Cast", [unit], f"{name}/narrow", to=graph.element) if half else unit
        return graph.op("Mul", [unit, self.weights.vector(module)], f"{name}/Mul")

    def add_norm(self, residual: str, value: str, module: str, name: str) -> tuple[str, str]:
        total = self.graph.op("Add", [residual, value], f"{name}/sum")
        return self.norm(total, module, name), total

    def attention(self, layer: int, value: str) -> str:
        graph, d, node = self.graph, self._decoder, f"/model/layers.{layer}/self_attn"
        query = self._rotated(layer, value, "q", d.heads // d.kv_heads)
        key = self._rotated(layer, value, "k", 1)
        content = self._apart(self._projected(layer, value, "v"), f"{node}/v", 1)
        shape = graph.integers(0, 0, -1, d.head_dim)
        new_key = graph.op("Reshape", [key, shape], f"{node}/k/new", outputs=[f"new.{layer}.key"])
        new_value = graph.op("Reshape", [content, shape], f"{node}/v/new", outputs=[f"new.{layer}.value"])
        query = graph.op("Reshape", [query, shape], f"{node}/q/folded")
        past = f"past_key_values.{layer}"
        keys = graph.op("Concat", [f"{past}.key", new_key], f"{node}/keys", axis=2)
        values = graph.op("Concat", [f"{past}.value", new_value], f"{node}/values", axis=2)
        columns = graph.op("Transpose", [keys], f"{node}/columns", perm=[0, 1, 3, 2])
        scale = graph.constant(np.array(d.head_dim**-0.5, dtype=graph.dtype))
        query = graph.op("Mul", [query, scale], f"{node}/q/scaled")
        scores = graph.op("MatMul", [query, columns], f"{node}/scores")
        biased = graph.op("Add", [scores, self._bias], f"{node}/biased")
        shares = graph.op("Softmax", [biased], f"{node}/shares", axis=-1)
        return self._joined(graph.op("MatMul", [shares, values], f"{node}/mix"), node)

    def _projected(self, layer: int, value: str, part: str) -> str:
        module = f"model.layers.{layer}.self_attn.{part}_proj"
        return linear(self, value, module, [module], bias=self._decoder.attention_bias)

    def _apart(self, value: str, node: str, group: int) -> str:
        """[batch, sequence, kv_heads * group * head_dim] -> [batch, kv_heads, group, sequence, head_dim]."""
        graph, d = self.graph, self._decoder
        shape = graph.integers(0, 0, d.kv_heads, group, d.head_dim)
        apart = graph.op("Reshape", [value, shape], f"{node}/apart")
        return graph.op("Transpose", [apart], f"{node}/heads", perm=[0, 2, 3, 1, 4])

    def _rotated(self, layer: int, value: str, part: str, group: int) -> str:
        """Query or key by head, normalised where the architecture does so, turned to its position."""
        graph, d, node = self.graph, self._decoder, f"/model/layers.{layer}/self_attn/{part}"
        heads = self._apart(self._projected(layer, value, part), node, group)
        if d.qk_norm:
            heads = self.norm(heads, f"model.layers.{layer}.self_attn.{part}_norm", f"{node}_norm")
        half = d.head_dim // 2
        halves = [f"{node}/first", f"{node}/second"]
        sizes = graph.integers(half, half)
        graph.op("Split", [heads, sizes], f"{node}/halves", outputs=halves, axis=-1)
        turned = []
        for sign, (one, other) in (("Sub", halves), ("Add", halves[::-1])):
            near = graph.op("Mul", [one, self._cosine], f"{node}/{sign}/cos")
            far = graph.op("Mul", [other, self._sine], f"{node}/{sign}/sin")
            turned.append(graph.op(sign, [near, far], f"{node}/{sign}"))
        return graph.op("Concat", turned, f"{node}/rotated", axis=-1)

    def _joined(self, mix: str, node: str) -> str:
        """[batch, kv_heads, group * sequence, head_dim] -> [batch, sequence, heads * head_dim]."""
        graph, d = self.graph, self._decoder
        shape = graph.integers(0, d.kv_heads, d.heads // d.kv_heads, -1, d.head_dim)
        apart = graph.op("Reshape", [mix, shape], f"{node}/mix/apart")
        rows = graph.op("Transpose", [apart], f"{node}/mix/rows", perm=[0, 3, 1, 2, 4])
        return graph.op("Reshape", [rows, graph.integers(0, 0, d.heads * d.head_dim)], f"{node}/mix/joined")

    def head(self, value: str) -> None:
        graph, d = self.graph, self._decoder
        if d.tied:
            table = self.weights.rows("model.embed_tokens")
            weight = graph.op("Transpose", [table], "/lm_head/Transpose", perm=[1, 0])
        else:
            weight = self.weights.linear("lm_head", ["lm_head"])
        graph.op("MatMul", [value, weight], "/lm_head/MatMul", outputs=["logits"])
        graph.output("logits", ["batch", "sequence", d.vocab])
        for layer in range(d.layers):
            for kind in ("key", "value"):
                graph.output(f"new.{layer}.{kind}", ["batch", d.kv_heads, "sequence", d.head_dim])


class LayerNormed(Standard):
    """`Standard` with each RMSNorm as the first half of a LayerNormalization of [x, -x]."""

    def norm(self, value: str, module: str, name: str) -> str:
        graph, epsilon = self.graph, self._decoder.norm_eps
        both = graph.op("Concat", [value, graph.op("Neg", [value], f"{name}/negative")], f"{name}/both", axis=-1)
        inputs = [both, self.weights.twice(module)]
        normed = graph.op("LayerNormalization", inputs, f"{name}/normed", axis=-1, epsilon=epsilon)
        size = self.weights.size(module)
        bounds = [graph.integers(each) for each in (0, size, -1)]
        return graph.op("Slice", [normed, *bounds], f"{name}/Mul")
