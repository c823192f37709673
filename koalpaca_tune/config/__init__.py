"""Strict configuration: every choice either takes effect or is an error at its line."""
