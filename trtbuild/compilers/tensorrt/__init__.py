"""TensorRT and TensorRT for RTX: `compiler` declares them; the other modules belong to their workers."""
