"""Chat templates: read, rendered, and tried apart from this process."""
