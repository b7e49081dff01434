"""Tensors of a checkpoint: their names, bytes, types and places."""
