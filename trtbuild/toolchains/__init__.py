"""A compiler's tools as an input: locked by version and sha256, installed apart on first use, part of the key."""
