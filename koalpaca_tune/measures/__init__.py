"""Measures of Korean text: an answer against references, alone, or with its question. No model, no network."""
