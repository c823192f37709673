"""Answers on request: a chat's memory, many clients' requests on one model, and the OpenAI-compatible server."""
