"""Repairs that change no meaning, and personal data masked; each counted."""
