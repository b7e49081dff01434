"""Many points at once: what they share is looked up and built once, and where it runs is chosen by its hardware."""
