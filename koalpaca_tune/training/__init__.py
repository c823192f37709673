"""The QLoRA loop, its checkpoints and its records."""
