"""Two evaluations of the same items: what changed, and what can be said of it."""
