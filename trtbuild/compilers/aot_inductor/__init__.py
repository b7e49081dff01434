"""Ahead-of-time Inductor: `compiler` declares it, the other modules are its workers'."""
