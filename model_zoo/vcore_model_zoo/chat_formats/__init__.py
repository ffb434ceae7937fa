"""Parsers of the chat formats of well-known models: tool calls and reasoning in their text."""
