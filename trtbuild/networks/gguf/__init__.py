"""GGUF metadata to the config that the same checkpoint has elsewhere."""
