"""Structured output by the llguidance library: token masks from JSON schemas, expressions and grammars."""
