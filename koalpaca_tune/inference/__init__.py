"""Answers, scores and merged weights from a base and its adapter."""
