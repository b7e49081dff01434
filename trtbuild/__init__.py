"""trtbuild: a declarative build system for LLM inference engines."""

__version__ = "0.1.0"
