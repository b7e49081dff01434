"""TensorRT-LLM, releases 1.2: checkpoint and engine by NVIDIA's own tools, in their image or a Python that has them."""
