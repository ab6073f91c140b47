"""A look at a whole stream before a run."""
