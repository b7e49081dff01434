"""Runs an engine on the GPU of this process; the cache stays there."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from trtbuild.compilers.tensorrt.build import MODULES
from trtbuild.compilers.tensorrt.device import Device
from trtbuild.compilers.tensorrt.speech import Call, Layout, Shape
from trtbuild.errors import BuildError
from trtbuild.networks.stored import Array

_DTYPES = {"float16": np.float16, "float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


class TensorRt:
    """The engines of a folder, loaded. Raises BuildError where one does not load or run."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self._trt = importlib.import_module(MODULES[manifest["compiler"]])
        self._manifest = manifest
        self._dtype = np.dtype(_DTYPES[manifest["dtype"]])
        self._device = Device()
        self._logger = self._trt.Logger(self._trt.Logger.WARNING)
        self._runtime = self._trt.Runtime(self._logger)
        self._engines = [self._load(folder / engine["file"]) for engine in manifest["engines"]]
        self._phases: dict[str, _Phase] = {}

    def _load(self, path: Path) -> Any:
        plan = path.read_bytes()
        if hasattr(self._runtime, "get_engine_validity"):
            validity, diagnostics = self._runtime.get_engine_validity(plan)
            if validity == self._trt.EngineValidity.INVALID:
                reasons = self._trt.EngineInvalidityDiagnostics.__members__
                named = [name for name, bit in reasons.items() if diagnostics & int(bit)]
                raise BuildError(
                    f"this GPU cannot run {path.name}: {', '.join(named) or 'TensorRT gives no reason'}"
                )
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BuildError(f"TensorRT cannot load {path.name}; its log says why")
        return engine

    def prepare(self, shapes: Layout) -> None:
        """Make the contexts and the empty cache for calls of these shapes."""
        static = self._manifest["engines"][0]["static"]
        several = len(self._manifest["engines"][0]["phases"]) > 1
        places = {"decode": (0, 0), "prefill": (1, 0) if static else (0, 1 if several else 0)}
        caches: dict[int, _Cache] = {}
        for name, shape in (("prefill", shapes.prefill), ("decode", shapes.decode)):
            if shape.past not in caches:
                caches[shape.past] = _Cache(self._device, self._manifest, shape.past, self._dtype.itemsize)
            engine, profile = places[name]
            self._phases[name] = _Phase(
                self._device, self._engines[engine], profile, shape, self._manifest, self._dtype, caches
            )

    def run(self, call: Call) -> Array:
        return self._phases[call.phase].run(call)


class _Cache:
    """Keys and values of each layer, [batch, kv_heads, slots, head_dim]."""

    def __init__(self, device: Device, manifest: Mapping[str, Any], slots: int, itemsize: int) -> None:
        self._decoder = manifest["decoder"]
        self.slots = slots
        size = _batch(manifest) * self._decoder["kv_heads"] * slots * self._decoder["head_dim"] * itemsize
        names = [f"{layer}.{kind}" for layer in range(self._decoder["layers"]) for kind in ("key", "value")]
        self.addresses = {name: device.zeros(size) for name in names}


class _Phase:
    """One execution context with its buffers, for calls of one shape."""

    def __init__(
        self,
        device: Device,
        engine: Any,
        profile: int,
        shape: Shape,
        manifest: Mapping[str, Any],
        dtype: np.dtype[Any],
        caches: Mapping[int, _Cache],
    ) -> None:
        self._device, self._shape, self._dtype, self._caches = device, shape, dtype, caches
        self._decoder, self._batch = manifest["decoder"], _batch(manifest)
        self._context = engine.create_execution_context()
        if self._context is None or not self._context.set_optimization_profile_async(profile, device.stream):
            raise BuildError("TensorRT makes no context for the engine; is there memory enough on the GPU?")
        self._engine = engine
        self._at: dict[str, int] = {}
        self._bind(caches[shape.past])

    def _bind(self, cache: _Cache) -> None:
        decoder, batch, tokens = self._decoder, self._batch, self._shape.tokens
        past = (batch, decoder["kv_heads"], cache.slots, decoder["head_dim"])
        new = batch * past[1] * tokens * past[3] * self._dtype.itemsize
        shapes = {
            "input_ids": (batch, tokens),
            "position_ids": (batch, tokens),
            "attention_bias": (batch, 1, tokens, cache.slots + tokens),
        }
        sizes = {
            "input_ids": 4 * batch * tokens,
            "position_ids": 4 * batch * tokens,
            "attention_bias": batch * tokens * (cache.slots + tokens) * self._dtype.itemsize,
            "logits": batch * tokens * decoder["vocab"] * self._dtype.itemsize,
        }
        for name, address in cache.addresses.items():
            shapes[f"past_key_values.{name}"], self._at[f"past_key_values.{name}"] = past, address
            sizes[f"new.{name}"] = new
        self._at |= {name: self._device.zeros(size) for name, size in sizes.items()}
        for name, dims in shapes.items():
            if not self._context.set_input_shape(name, dims):
                raise BuildError(f"the engine does not take {name} of shape {list(dims)}")
        for name, address in self._at.items():
            self._context.set_tensor_address(name, address)

    def run(self, call: Call) -> Array:
        device = self._device
        given = {
            "input_ids": call.ids,
            "position_ids": call.positions,
            "attention_bias": call.bias.astype(self._dtype),
        }
        for name, values in given.items():  # an engine of a fixed batch computes the one sequence in each row
            device.write(
                self._at[name], np.ascontiguousarray(np.broadcast_to(values, (self._batch, *values.shape)))
            )
        if not self._context.execute_async_v3(device.stream):
            raise BuildError("the engine does not run; TensorRT's log says why")
        self._keep(call)
        logits = np.empty((self._shape.tokens, self._decoder["vocab"]), self._dtype)
        device.read(logits, self._at["logits"])
        return np.asarray(logits[call.count - 1], np.float32)

    def _keep(self, call: Call) -> None:
        """Copy the new keys and values to their slots, in each cache that has them."""
        row = self._decoder["head_dim"] * self._dtype.itemsize
        for cache in self._caches.values():
            count = min(call.count, cache.slots - call.slot)
            if count <= 0:
                continue
            for name, address in cache.addresses.items():
                self._device.copy_rows(
                    address + call.slot * row,
                    cache.slots * row,
                    self._at[f"new.{name}"],
                    self._shape.tokens * row,
                    count * row,
                    self._batch * self._decoder["kv_heads"],
                )


def _batch(manifest: Mapping[str, Any]) -> int:
    """The least that the engines take."""
    return int(manifest["engines"][0]["phases"][0]["batch"][0])
