"""The decoder in ONNX Runtime's fused operators, with onnxruntime-genai's input and output names.

It is the graph of onnxruntime-genai's own model builder for CPUs: q, k and v in one MatMul unless they are
normalised apart, GroupQueryAttention that rotates and keeps the cache, SkipSimplifiedLayerNormalization.

    input_ids [batch, sequence] int64               logits [batch, sequence, vocab]
    attention_mask [batch, total] int64, 1 = token
    past_key_values.{l}.key|value [batch, kv_heads, past, head_dim]
                                                    present.{l}.key|value [batch, kv_heads, total, head_dim]

Padding goes to the right, as GroupQueryAttention counts tokens (`seqlens_k` = tokens - 1).

A tied head is stored once, as lm_head.MatMul.weight [hidden, vocab]; the embedding gathers from its transpose
(the builder does the same in float32). A quantizer may replace both by one quantized copy: the two consumers
are /lm_head/MatMul and /model/embed_tokens/Transpose -> /model/embed_tokens/Gather.
"""

from __future__ import annotations

from onnx import TensorProto

from trtbuild.networks.config.decoder import Decoder
from trtbuild.networks.onnx_graph.skeleton import GraphWeights, linear
from trtbuild.networks.onnx_graph.writer import Dimension, Graph

OPSETS = (("", 21), ("com.microsoft", 1))
IR_VERSION = 10
_MICROSOFT = "com.microsoft"


class Fused:
    """Adds a decoder's parts to `graph` (a `skeleton.Flavour`)."""

    def __init__(self, graph: Graph, decoder: Decoder, weights: GraphWeights) -> None:
        self.graph, self.weights, self._decoder = graph, weights, decoder
        self._lengths = self._total = ""

    def embed(self) -> str:
        graph, d = self.graph, self._decoder
        graph.input("input_ids", ["batch_size", "sequence_length"], TensorProto.INT64)
        graph.input("attention_mask", ["batch_size", "total_sequence_length"], TensorProto.INT64)
        for layer in range(d.layers):
            for kind in ("key", "value"):
                shape: list[Dimension] = ["batch_size", d.kv_heads, "past_sequence_length", d.head_dim]
                graph.input(f"past_key_values.{layer}.{kind}", shape)
        self._count_tokens()
        if d.tied:
            head = self.weights.linear("lm_head", ["model.embed_tokens"])
            table = graph.op("Transpose", [head], "/model/embed_tokens/Transpose", perm=[1, 0])
        else:
            table = self.weights.rows("model.embed_tokens")
        return graph.op("Gather", [table, "input_ids"], "/model/embed_tokens/Gather")

    def _count_tokens(self) -> None:
        """seqlens_k [batch]: tokens of each row, less one; total: the mask's width. Both int32."""
        graph, node = self.graph, "/model/attention_mask"
        tokens = graph.op("ReduceSum", ["attention_mask", graph.integers(1)], f"{node}/ReduceSum", keepdims=0)
        last = graph.op("Sub", [tokens, graph.integers(1)], f"{node}/Sub")
        self._lengths = graph.op("Cast", [last], f"{node}/seqlens_k", to=TensorProto.INT32)
        width = graph.op("Shape", ["attention_mask"], f"{node}/Shape", start=1, end=2)
        scalar = graph.op("Squeeze", [width, graph.integers(0)], f"{node}/Squeeze")
        self._total = graph.op("Cast", [scalar], f"{node}/total_sequence_length", to=TensorProto.INT32)

    def norm(self, value: str, module: str, name: str) -> str:
        # Registered in ONNX Runtime's default domain. stash_type 1: float32 inside.
        return self.graph.op(
            "SimplifiedLayerNormalization",
            [value, self.weights.vector(module)],
            f"{name}/SimplifiedLayerNormalization",
            epsilon=self._decoder.norm_eps,
            axis=-1,
            stash_type=1,
        )

    def add_norm(self, residual: str, value: str, module: str, name: str) -> tuple[str, str]:
        total = f"{name}/sum"
        last = module == "model.norm"  # nothing reads the last sum
        node = f"{name}/SkipSimplifiedLayerNormalization"
        result = self.graph.op(
            "SkipSimplifiedLayerNormalization",
            [residual, value, self.weights.vector(module)],
            node,
            outputs=[node] if last else [node, "", "", total],
            domain=_MICROSOFT,
            epsilon=self._decoder.norm_eps,
        )
        return result, total

    def attention(self, layer: int, value: str) -> str:
        graph, d = self.graph, self._decoder
        node = f"/model/layers.{layer}/self_attn/GroupQueryAttention"
        past = [f"past_key_values.{layer}.{kind}" for kind in ("key", "value")]
        present = [f"present.{layer}.{kind}" for kind in ("key", "value")]
        return graph.op(
            "GroupQueryAttention",
            [*self._projected(layer, value), *past, self._lengths, self._total, *self.weights.rotary()],
            node,
            outputs=[node, *present],
            domain=_MICROSOFT,
            num_heads=d.heads,
            kv_num_heads=d.kv_heads,
            scale=d.head_dim**-0.5,
            do_rotary=1,
            local_window_size=d.sliding_window or -1,
        )

    def _projected(self, layer: int, value: str) -> list[str]:
        """Query, key and value; packed in the first, with the others left out, unless normalised apart."""
        d, prefix = self._decoder, f"model.layers.{layer}.self_attn"
        modules = [f"{prefix}.{part}_proj" for part in "qkv"]
        if not d.qk_norm:
            return [linear(self, value, f"{prefix}.qkv_proj", modules, bias=d.attention_bias), "", ""]
        query, key, content = (linear(self, value, module, [module], bias=d.attention_bias) for module in modules)
        query = self._head_norm(query, layer, "q_norm", d.heads)
        return [query, self._head_norm(key, layer, "k_norm", d.kv_heads), content]

    def _head_norm(self, value: str, layer: int, which: str, heads: int) -> str:
        graph, dim, node = self.graph, self._decoder.head_dim, f"/model/layers.{layer}/self_attn/{which}"
        apart = graph.op("Reshape", [value, graph.integers(0, -1, dim)], f"{node}/Reshape_1")
        normed = self.norm(apart, f"model.layers.{layer}.self_attn.{which}", node)
        return graph.op("Reshape", [normed, graph.integers(0, -1, heads * dim)], f"{node}/Reshape_2")

    def head(self, value: str) -> None:
        graph, d = self.graph, self._decoder
        source = "model.embed_tokens" if d.tied else "lm_head"
        weight = self.weights.linear("lm_head", [source])
        graph.op("MatMul", [value, weight], "/lm_head/MatMul", outputs=["logits"])
        graph.output("logits", ["batch_size", "sequence_length", d.vocab])
        for layer in range(d.layers):
            for kind in ("key", "value"):
                shape: list[Dimension] = ["batch_size", d.kv_heads, "total_sequence_length", d.head_dim]
                graph.output(f"present.{layer}.{kind}", shape)
