"""Whole jobs, from a recipe to a folder; the only place that sees a whole Recipe."""
