"""`ChatSession`: a conversation, and one turn of it at a time. It knows no terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vcore.engine.llm import LLM
    from vcore.outputs import RequestOutput
    from vcore.sampling_params import SamplingParams

__all__ = ["ChatSession", "Turn"]


@dataclass(frozen=True, slots=True)
class Turn:
    """What came of one question."""

    output: RequestOutput | None
    """As far as it came; None if not even one token did."""
    interrupted: bool
    """Whether Ctrl-C ended it."""


@dataclass(slots=True)
class ChatSession:
    """Messages so far, and the engine that answers."""

    llm: LLM
    params: SamplingParams
    system: str | None = None
    messages: list[dict[str, str]] = field(default_factory=list)
    """Without the system message."""

    def reset(self) -> None:
        """Forget all messages but the system's."""
        self.messages.clear()

    def ask(self, question: str, show: Callable[[str], None]) -> Turn:
        """Put a question and stream the answer.

        After Ctrl-C the conversation goes on with as much of the answer as there is. After an error it goes
        on as if the question had not been asked.

        Args:
            question: the user's message.
            show: called with each new piece of the answer's text.

        Raises:
            RequestError: the conversation is too long, or the chat template refuses it.
        """
        asked = [*self.messages, {"role": "user", "content": question}]
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        prompt = self.llm.render_chat([*system, *asked])
        output: RequestOutput | None = None
        interrupted, shown = False, 0
        stream = self.llm.stream(prompt, self.params)
        try:
            for output in stream:
                text = output.outputs[0].text
                show(text[shown:])
                shown = len(text)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            stream.close()
        if output is not None and output.outputs[0].finish_reason != "error":
            self.messages = [*asked, {"role": "assistant", "content": output.outputs[0].text}]
        return Turn(output, interrupted)
