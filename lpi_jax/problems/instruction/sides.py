"""What instruction following calls its one site and its one side."""

SITE = "language"  # where prompts enter
SIDE = "sample"  # what queries are made of
