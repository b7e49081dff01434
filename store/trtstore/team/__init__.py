"""A store that a team shares: keys, signatures, trust, revocations and policies."""
