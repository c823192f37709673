"""Koalpaca Tune: Korean LLM fine-tuning in which every choice takes effect or is an error."""

__all__ = ["__version__"]

__version__ = "0.1.0"
