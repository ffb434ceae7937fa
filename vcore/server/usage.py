"""`UsageCount`: the tokens of one HTTP request."""

from __future__ import annotations

from vcore.outputs import RequestOutput
from vcore.server.protocol.common import Usage

__all__ = ["UsageCount"]


class UsageCount:
    """Counts what outputs bring, whole or in pieces."""

    def __init__(self, *, count_output: bool = True) -> None:
        """Begin at nothing; `count_output` is False if the output is thrown away."""
        self._count_output = count_output
        self._prompts: dict[int, tuple[int, int]] = {}
        """By index: tokens, and those that were cached."""
        self._num_output_tokens = 0

    def add(self, index: int, output: RequestOutput) -> None:
        """Count what is new: an output of mode ``delta``, or one of mode ``final``."""
        self._prompts[index] = len(output.prompt_token_ids), output.num_cached_tokens
        if self._count_output:
            for sample in output.outputs:
                self._num_output_tokens += len(sample.token_ids)

    def usage(self) -> Usage:
        """The counts so far."""
        num_prompt = sum(prompt for prompt, _ in self._prompts.values())
        return {
            "prompt_tokens": num_prompt,
            "completion_tokens": self._num_output_tokens,
            "total_tokens": num_prompt + self._num_output_tokens,
            "prompt_tokens_details": {"cached_tokens": sum(cached for _, cached in self._prompts.values())},
        }
