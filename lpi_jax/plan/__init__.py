"""What a run would need on devices that are not there: its own programs, compiled ahead of time."""
