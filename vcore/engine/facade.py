"""What `LLM` and `AsyncLLM` have in common: the form in which a model is named, and the tokenizer's methods."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vcore.config import EngineConfig, load_config
from vcore.engine.conversations import Conversation, render_conversation
from vcore.engine.prompts import TokensPrompt
from vcore.errors import ConfigError

if TYPE_CHECKING:
    from vcore.tokenizer import Tokenizer

__all__ = ["Facade", "config_of"]


def config_of(
    facade: str,
    model: str | Path | None,
    config: EngineConfig | Mapping[str, Any] | str | Path | None,
    overrides: Mapping[str, Any],
) -> EngineConfig:
    """The configuration that the arguments of a facade say.

    Args:
        facade: its name, for errors.
        model: a name, folder or file; None for what `config` says, or else the default model.
        config: a tree, a dictionary, or a file with one.
        overrides: parts of the tree, or flat keywords.

    Raises:
        ConfigError: something is unknown or wrong.
    """
    if model is None:
        return load_config(config, overrides)
    if not isinstance(model, str | Path):
        raise ConfigError(
            f"{facade}(model=...) takes a name, folder or file, got {type(model).__name__}; settings of the model "
            'go into config={"model": {...}}'
        )
    return load_config(config, {**overrides, "model.path": str(model)})


class Facade(ABC):
    """An engine as programs see it; here, what its tokenizer alone can do, in any thread."""

    @abstractmethod
    def get_tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            RequestError: the engine was made without one.
        """

    @property
    @abstractmethod
    def max_model_len(self) -> int:
        """Most tokens of prompt and output together."""

    def render_chat(self, conversation: Conversation, /, **template_options: Any) -> TokensPrompt:
        """The prompt that the chat template makes of a conversation, to generate for.

        Raises:
            RequestError: a message is wrong, there is no chat template, or it refuses the messages.
            RequestTooLargeError: its text is too long for the model by far.
        """
        return render_conversation(conversation, self.get_tokenizer(), self.max_model_len, template_options)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The token ids of `text`."""
        return self.get_tokenizer().encode(text, add_special_tokens=add_special_tokens)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of `token_ids`."""
        return self.get_tokenizer().decode(token_ids, skip_special_tokens=skip_special_tokens)
