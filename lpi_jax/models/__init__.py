"""Frozen backbones: towers, their weights and their tokenizer."""
