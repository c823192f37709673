"""The model card and the upload."""
