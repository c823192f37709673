"""Rows, of any shape, to conversations."""
