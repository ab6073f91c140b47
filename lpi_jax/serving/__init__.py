"""A trained run as a model, and what can be done with it."""
