"""What requests and answers look like: pydantic models for what comes in, typed dictionaries for what goes out.

Answers are dictionaries because one is made for each piece of text that is streamed.
"""
