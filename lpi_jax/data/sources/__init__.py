"""Where streams come from: one file a source."""
