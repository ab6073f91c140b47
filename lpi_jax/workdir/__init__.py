"""A run's directory: whose it is, its record, its checkpoints, its lock."""
