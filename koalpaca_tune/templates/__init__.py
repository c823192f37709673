"""Prompt templates: conversations to text, with what to learn marked."""
