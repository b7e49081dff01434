"""A store in a bucket or a shared folder: objects, parts, deadlines and leases."""
