"""Runs an engine on the GPU of this process; the cache stays in GPU memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from trtbuild.compilers.cuda import CudaDevice
from trtbuild.compilers.tensorrt import inspection
from trtbuild.compilers.tensorrt.call_schedule import Call, CallSchedule, CallShape
from trtbuild.errors import BuildError
from trtbuild.networks.weights.arrays import Array

_DTYPES = {"float16": np.float16, "float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


class TensorRt:
    """The engines of a folder, loaded by the module `trt`. Raises BuildError if one does not load or run."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any], trt: Any, device: CudaDevice) -> None:
        self._trt, self._device, self._manifest = trt, device, manifest
        self._dtype = np.dtype(_DTYPES[manifest["dtype"]])
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
                raise BuildError(f"this GPU cannot run {path.name}: {', '.join(named) or 'TensorRT gives no reason'}")
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BuildError(f"TensorRT cannot load {path.name}; its log says why")
        return engine

    def facts(self) -> list[dict[str, Any]]:
        """Facts of each loaded engine: layers after fusion, scratch memory in bytes, and, if the engine was built with
        such details, how many layers put out each type."""
        facts = []
        for file, engine in zip(self._manifest["engines"], self._engines, strict=True):
            memory = getattr(engine, "device_memory_size_v2", None) or getattr(engine, "device_memory_size", None)
            known = {"file": file["file"], "layers": engine.num_layers, "scratch_bytes": memory}
            facts.append({**known, "precisions": inspection.precisions(self._inspected(engine))})
        return facts

    def _inspected(self, engine: Any) -> str:
        inspector = engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def prepare(self, shapes: CallSchedule) -> None:
        """Create the contexts and the empty cache for calls of these shapes."""
        static = self._manifest["engines"][0]["static"]
        several = len(self._manifest["engines"][0]["phases"]) > 1
        places = {"decode": (0, 0), "prefill": (1, 0) if static else (0, 1 if several else 0)}
        caches: dict[int, _Cache] = {}
        contexts: dict[tuple[int, int], _Context] = {}
        for name, shape in (("prefill", shapes.prefill), ("decode", shapes.decode)):
            if shape.past not in caches:
                caches[shape.past] = _Cache(self._device, self._manifest, shape.past, self._dtype.itemsize)
            place = places[name]
            if place not in contexts:  # before release 10 each profile may have one context
                contexts[place] = _Context(self._engines[place[0]], place[1], self._device.stream, static)
            self._phases[name] = _Phase(self._device, contexts[place], shape, self._manifest, self._dtype, caches)

    def run(self, call: Call) -> Array:
        return self._phases[call.phase].run(call)


class _Cache:
    """Keys and values of each layer, [batch, kv_heads, slots, head_dim]."""

    def __init__(self, device: CudaDevice, manifest: Mapping[str, Any], slots: int, itemsize: int) -> None:
        self._decoder = manifest["decoder"]
        self.slots = slots
        size = _batch(manifest) * self._decoder["kv_heads"] * slots * self._decoder["head_dim"] * itemsize
        names = [f"{layer}.{kind}" for layer in range(self._decoder["layers"]) for kind in ("key", "value")]
        self.addresses = {name: device.zeros(size) for name in names}


class _Context:
    """An execution context, and the phase whose shapes and buffers are set in it."""

    def __init__(self, engine: Any, profile: int, stream: int, static: bool) -> None:
        self.static = static
        self.user: object | None = None
        self.native = engine.create_execution_context()
        fits = self.native is not None
        if not fits or (profile and not self.native.set_optimization_profile_async(profile, stream)):
            raise BuildError("TensorRT makes no context for the engine; is there memory enough on the GPU?")

    def serve(self, user: object, shapes: Mapping[str, tuple[int, ...]], at: Mapping[str, int]) -> None:
        """Set the shapes and buffers of `user`, unless they are set already."""
        if self.user is user:
            return
        for name, dims in shapes.items():
            if not self.static and not self.native.set_input_shape(name, dims):
                raise BuildError(f"the engine does not take {name} of shape {list(dims)}")
        for name, address in at.items():
            self.native.set_tensor_address(name, address)
        self.user = user


class _Phase:
    """Calls of one shape, with their buffers."""

    def __init__(
        self,
        device: CudaDevice,
        context: _Context,
        shape: CallShape,
        manifest: Mapping[str, Any],
        dtype: np.dtype[Any],
        caches: Mapping[int, _Cache],
    ) -> None:
        self._device, self._context, self._shape, self._dtype = device, context, shape, dtype
        self._caches = caches
        self._decoder, self._batch = manifest["decoder"], _batch(manifest)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._at: dict[str, int] = {}
        self._allocate(caches[shape.past])

    def _allocate(self, cache: _Cache) -> None:
        decoder, batch, tokens = self._decoder, self._batch, self._shape.tokens
        past = (batch, decoder["kv_heads"], cache.slots, decoder["head_dim"])
        new = batch * past[1] * tokens * past[3] * self._dtype.itemsize
        self._shapes = {
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
            self._shapes[f"past_key_values.{name}"] = past
            self._at[f"past_key_values.{name}"] = address
            sizes[f"new.{name}"] = new
        self._at |= {name: self._device.zeros(size) for name, size in sizes.items()}

    def run(self, call: Call) -> Array:
        device = self._device
        inputs = {
            "input_ids": call.ids,
            "position_ids": call.positions,
            "attention_bias": call.bias.astype(self._dtype),
        }
        for name, values in inputs.items():  # an engine with a fixed batch gets the same sequence in each row
            device.write(self._at[name], np.ascontiguousarray(np.broadcast_to(values, (self._batch, *values.shape))))
        self._context.serve(self, self._shapes, self._at)
        if not self._context.native.execute_async_v3(device.stream):
            raise BuildError("the engine does not run; TensorRT's log says why")
        self._keep(call)
        logits = np.empty((self._shape.tokens, self._decoder["vocab"]), self._dtype)
        device.read(logits, self._at["logits"])
        return np.asarray(logits[call.count - 1], np.float32)

    def _keep(self, call: Call) -> None:
        """Copy the new keys and values to their slots in each cache."""
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
    """The smallest batch that the engines take."""
    return int(manifest["engines"][0]["phases"][0]["batch"][0])
