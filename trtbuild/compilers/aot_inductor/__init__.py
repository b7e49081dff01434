"""Ahead-of-time Inductor: `compiler` declares it; the other modules belong to its workers."""
