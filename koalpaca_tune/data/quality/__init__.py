"""What can be measured of a conversation, and the limits that a recipe sets on it."""
