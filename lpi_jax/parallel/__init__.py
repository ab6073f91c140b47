"""Processes, devices, meshes, and programs that are compiled once."""
