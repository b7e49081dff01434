"""A store in front of others, and artifacts as one file."""
