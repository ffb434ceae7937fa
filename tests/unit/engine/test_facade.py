"""What both facades have in common: how a model is named, and what the tokenizer alone can do."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from vcore.engine.async_llm import AsyncLLM
from vcore.engine.facade import Facade, config_of
from vcore.engine.llm import LLM
from vcore.errors import ConfigError, RequestTooLargeError


class Characters:
    """A tokenizer with a token a character."""

    def render_chat(self, messages: list[dict[str, Any]], **options: Any) -> str:
        return "".join(message["content"] for message in messages)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return [0] * add_special_tokens + [ord(one) for one in text]

    def decode(self, token_ids: list[int], *, skip_special_tokens: bool = True) -> str:
        return "".join(chr(one) for one in token_ids if one or not skip_special_tokens)

    def fewest_tokens(self, text: str) -> int:
        return len(text)


class Engine(Facade):
    max_model_len = 8  # type: ignore[assignment]  # read only there

    def get_tokenizer(self) -> Any:
        return Characters()


@pytest.mark.parametrize("facade", [LLM, AsyncLLM])
def test_a_model_is_named_in_one_form(facade: type[Any]) -> None:
    assert issubclass(facade, Facade)
    with pytest.raises(ConfigError, match=rf"^{facade.__name__}\(model=...\) takes a name, folder or file, got dict"):
        facade(model={"path": "x"})


def test_the_model_wins_over_the_configuration() -> None:
    overrides = {"dtype": "float32"}
    tree = config_of("LLM", Path("a/b"), {"model": {"path": "c", "skip_tokenizer": True}}, overrides)
    assert (tree.model.path, tree.model.skip_tokenizer, tree.model.dtype) == ("a/b", True, "float32")
    assert overrides == {"dtype": "float32"}
    assert config_of("LLM", None, {"model": {"path": "c"}}, {}).model.path == "c"


def test_texts_and_tokens() -> None:
    engine = Engine()
    assert engine.encode("ab") == [0, 97, 98]
    assert engine.encode("ab", add_special_tokens=False) == [97, 98]
    assert engine.decode([0, 97]) == "a"
    assert engine.decode([0, 97], skip_special_tokens=False) == "\0a"


def test_a_conversation_that_is_too_long_by_far_is_not_tokenised(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine()
    rendered = cast(dict[str, Any], engine.render_chat([{"role": "user", "content": "hi"}]))
    assert rendered == {"prompt_token_ids": [104, 105], "prompt": "hi"}
    monkeypatch.delattr(Characters, "encode")
    with pytest.raises(RequestTooLargeError, match="at least 100000 tokens"):
        engine.render_chat([{"role": "user", "content": "x" * 100_000}])
