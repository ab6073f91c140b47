"""Image-text retrieval: which caption belongs to which image, among all seen so far."""
