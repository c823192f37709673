"""Texts that are nearly the same: within the data, and between the data and the evaluation."""
