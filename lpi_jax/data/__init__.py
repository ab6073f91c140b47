"""Streams of captioned pictures and what turns them into batches."""
