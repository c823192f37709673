"""Files in, clean conversations out, every drop counted."""
