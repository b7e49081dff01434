"""Small files about artifacts: what keeps one, what waits to be pushed, what is revoked or believed less."""
