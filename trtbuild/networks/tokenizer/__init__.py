"""Tokenizers: read, rewritten for a runtime, and compared."""
