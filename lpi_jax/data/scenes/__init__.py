"""Drawn scenes in domains: a stream that needs no download."""
