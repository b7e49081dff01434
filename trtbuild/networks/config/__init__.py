"""`config.json` to an architecture, every field read or refused."""
