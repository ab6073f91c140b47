"""The continual run: tasks in their order, each trained, measured and kept."""
