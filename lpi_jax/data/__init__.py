"""Streams of captioned images and what turns them into batches."""
