"""Encoding, decoding and chat templates, against transformers and on tokenizers made here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import tokenizers

from vcore.errors import RequestError
from vcore.tokenizer import Tokenizer

TEXTS = (
    "The capital of France is",
    "  leading and   inner spaces \n\n\ttabs",
    "In 2024, 135 cats cost $1,000.50!",
    "naïve café — “quotes” … 日本語 한국어 русский",
    "😀👩‍👩‍👧🏽 e\u0301",
    "<|im_start|>user\nhi<|im_end|>",
    "def f(x):\n    return x ** 2\n",
    "\x00\x7f\ufffd",
    "",
)
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Say é 😀 <|im_end|>"},
    {"role": "assistant", "content": "é 😀"},
    {"role": "user", "content": "Again"},
]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
    "{% if add_generation_prompt %}>{% endif %}"
)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
Builder = Callable[[], tokenizers.Tokenizer]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("special", [True, False])
def test_ids_and_text_are_those_of_transformers(
    smollm2_tokenizer: Tokenizer, smollm2_reference: Any, text: str, special: bool
) -> None:
    ids = smollm2_tokenizer.encode(text, add_special_tokens=special)
    assert ids == smollm2_reference.encode(text, add_special_tokens=special)
    assert smollm2_tokenizer.decode(ids, skip_special_tokens=True) == smollm2_reference.decode(
        ids, skip_special_tokens=True
    )
    assert smollm2_tokenizer.decode(ids, skip_special_tokens=False) == smollm2_reference.decode(ids)


def test_a_batch_is_encoded_as_its_texts_are(smollm2_tokenizer: Tokenizer) -> None:
    assert smollm2_tokenizer.encode_batch(TEXTS) == [smollm2_tokenizer.encode(text) for text in TEXTS]


def test_special_tokens_are_those_of_transformers(smollm2_tokenizer: Tokenizer, smollm2_reference: Any) -> None:
    assert smollm2_tokenizer.bos_token_id == smollm2_reference.bos_token_id == 1
    assert smollm2_tokenizer.eos_token_id == smollm2_reference.eos_token_id == 2
    assert smollm2_tokenizer.vocab_size == len(smollm2_reference) == 49_152
    assert set(smollm2_reference.all_special_ids) <= smollm2_tokenizer.all_special_ids
    assert smollm2_tokenizer.special_tokens == smollm2_reference.special_tokens_map


@pytest.mark.parametrize("more", [True, False])
def test_chat_is_rendered_as_by_transformers(smollm2_tokenizer: Tokenizer, smollm2_reference: Any, more: bool) -> None:
    assert smollm2_tokenizer.has_chat_template
    for conversation in (CONVERSATION, CONVERSATION[1:]):
        expected = smollm2_reference.apply_chat_template(conversation, tokenize=False, add_generation_prompt=more)
        assert smollm2_tokenizer.render_chat(conversation, more) == expected
        ids = smollm2_reference.apply_chat_template(conversation, add_generation_prompt=more, return_dict=False)
        assert smollm2_tokenizer.apply_chat_template(conversation, more) == ids


def test_every_token_of_the_real_vocabulary_has_the_text_that_decoding_gives(smollm2_tokenizer: Tokenizer) -> None:
    wrong = [
        token_id
        for token_id in range(smollm2_tokenizer.vocab_size)
        if smollm2_tokenizer.id_to_text(token_id) != smollm2_tokenizer.decode([token_id], skip_special_tokens=False)
    ]
    assert wrong == []


def test_the_text_of_one_token_keeps_its_space(sentencepiece_tokenizer: Tokenizer) -> None:
    paris = sentencepiece_tokenizer.token_to_id("▁Paris")
    byte = sentencepiece_tokenizer.token_to_id("<0x41>")
    assert paris is not None
    assert byte is not None
    assert sentencepiece_tokenizer.id_to_text(paris) == " Paris"
    assert sentencepiece_tokenizer.id_to_text(byte) == "A"


@pytest.mark.parametrize("token_id", [-1, 10**6, 2**32, 2**70])
def test_ids_beyond_the_vocabulary_have_no_text(any_tokenizer: Tokenizer, token_id: int) -> None:
    assert any_tokenizer.decode([token_id]) == ""
    assert any_tokenizer.id_to_text(token_id) == ""
    assert any_tokenizer.id_to_token(token_id) is None


def test_a_lone_surrogate_is_refused(smollm2_tokenizer: Tokenizer) -> None:
    with pytest.raises(RequestError, match="lone surrogate"):
        smollm2_tokenizer.encode("a\ud800b")


def test_what_is_no_text_is_refused(smollm2_tokenizer: Tokenizer) -> None:
    with pytest.raises(RequestError, match="must be a string, got int"):
        smollm2_tokenizer.encode_batch(["a", 3])  # type: ignore[list-item]


def test_stored_truncation_and_padding_are_ignored(byte_level_backend: Builder) -> None:
    backend = byte_level_backend()
    backend.enable_truncation(2)
    backend.enable_padding(length=9)
    assert len(Tokenizer(backend, {}, {}).encode("abcd")) == 4


class TestChatTemplates:
    @pytest.fixture(autouse=True)
    def _use(self, byte_level_backend: Builder) -> None:
        self.backend = byte_level_backend()

    def tokenizer(self, **templates: str) -> Tokenizer:
        return Tokenizer(self.backend, SPECIAL, templates)

    def test_special_tokens_reach_the_template(self) -> None:
        text = self.tokenizer(default=TEMPLATE).render_chat([{"role": "user", "content": "hi"}])
        assert text == "<s>[user:hi]>"

    def test_keys_without_a_value_are_left_out(self) -> None:
        template = "{{ 'x' if 'tool_calls' in messages[0] else 'absent' }}"
        message = {"role": "user", "content": "hi", "tool_calls": None}
        assert self.tokenizer(default=template).render_chat([message]) == "absent"

    CALLS: ClassVar = {
        "role": "assistant",
        "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"city": "Zürich"}}}],
    }

    @pytest.mark.parametrize(
        ("template", "text"),
        [
            ("{{ m['tool_calls'][0]['function']['arguments'] + '!' }}", '{"city": "Zürich"}!'),
            ("{{ m.tool_calls[0].function.arguments }}", '{"city": "Zürich"}'),
            ("{{ m.tool_calls[0].function.arguments | tojson }}", '{"city": "Zürich"}'),
            ("{% for k, v in m.tool_calls[0].function.arguments | items %}{{ k }}={{ v }}{% endfor %}", "city=Zürich"),
        ],
    )
    def test_arguments_of_calls_are_what_the_template_writes(self, template: str, text: str) -> None:
        tokenizer = self.tokenizer(default="{% set m = messages[0] %}" + template)
        assert tokenizer.render_chat([self.CALLS]) == text
        assert self.CALLS["tool_calls"][0]["function"]["arguments"] == {"city": "Zürich"}

    def test_arguments_that_are_text_stay_as_they_are(self) -> None:
        tokenizer = self.tokenizer(default="{{ messages[0].tool_calls[0].function.arguments }}")
        call = {"function": {"name": "f", "arguments": '{ "a":1}'}}
        assert tokenizer.render_chat([{"role": "assistant", "tool_calls": [call]}]) == '{ "a":1}'

    @pytest.mark.parametrize(
        "template",
        [
            "{{ 'calls' if messages[0]['content'] is none else 'text' }}",
            "{{ 'text' if messages[0].content is not none else 'calls' }}",
        ],
    )
    def test_a_template_that_asks_for_no_content_is_told_of_it(self, template: str) -> None:
        tokenizer = self.tokenizer(default=template)
        assert tokenizer.render_chat([self.CALLS]) == "calls"
        assert tokenizer.render_chat([{**self.CALLS, "content": "hi"}]) == "text"

    def test_no_content_is_missing_where_another_key_is_asked_for(self) -> None:
        template = "{{ messages[0].reasoning_content is none }} {{ messages[0].content is defined }}"
        assert self.tokenizer(default=template).render_chat([self.CALLS]) == "False False"

    def test_tools_take_their_own_template(self) -> None:
        tokenizer = self.tokenizer(default="plain", tool_use="with {{ tools[0].name }}")
        messages = [{"role": "user", "content": "hi"}]
        assert tokenizer.render_chat(messages) == "plain"
        assert tokenizer.render_chat(messages, tools=[{"name": "t"}]) == "with t"

    def test_a_template_can_be_given(self) -> None:
        assert self.tokenizer().render_chat([{"role": "user", "content": "hi"}], chat_template="x") == "x"

    def test_without_a_template_the_error_says_what_to_do(self) -> None:
        with pytest.raises(RequestError, match=r"no default chat template.*chat_template=") as caught:
            self.tokenizer().render_chat([{"role": "user", "content": "hi"}])
        assert caught.value.param == "messages"

    def test_a_template_that_refuses_is_quoted(self) -> None:
        tokenizer = self.tokenizer(default="{{ raise_exception('roles must alternate') }}")
        with pytest.raises(RequestError, match=r"roles: user.*roles must alternate"):
            tokenizer.render_chat([{"role": "user", "content": "hi"}])

    @pytest.mark.parametrize("messages", [[], "hi", {"role": "user"}, [{"content": "hi"}], ["hi"], [{"role": 3}]])
    def test_what_are_no_messages_is_refused(self, messages: Any) -> None:
        with pytest.raises(RequestError, match=r"message"):
            self.tokenizer(default=TEMPLATE).render_chat(messages)

    def test_a_template_cannot_reach_python(self) -> None:
        tokenizer = self.tokenizer(default="{{ ''.__class__.__mro__ }}")
        with pytest.raises(RequestError, match="SecurityError"):
            tokenizer.render_chat([{"role": "user", "content": "hi"}])
