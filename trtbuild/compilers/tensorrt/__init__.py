"""TensorRT and TensorRT for RTX: `compiler` declares them, the other modules are their workers'."""
