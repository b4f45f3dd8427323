"""The research team behind an OpenAI-compatible endpoint: calls and what they cost, prompts, answers, similarity."""
