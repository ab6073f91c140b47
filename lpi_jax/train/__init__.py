"""One task's training: the optimiser and the jitted step."""
