"""A tuned model for other programs: GGUF for llama.cpp, a Modelfile for Ollama, commands and templates for vLLM."""
