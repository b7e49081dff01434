"""TensorRT-LLM 1.2: checkpoint and engine by NVIDIA's own tools, in NVIDIA's image or a Python that has them."""
