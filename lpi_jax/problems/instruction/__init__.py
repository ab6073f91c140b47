"""Following instructions about images: LLaVA answers questions, and is trained and measured on their answers."""
