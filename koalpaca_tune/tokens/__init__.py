"""Text to ids and labels; packing."""
