"""What several test modules use: tiny checkpoints, the real command line, and real servers."""
