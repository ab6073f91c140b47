"""Drawn pictures with questions: a stream of instruction tasks that needs no download."""
