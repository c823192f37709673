"""What a step of training needs, in bytes and seconds, and the best way to take it on a card: only arithmetic."""
