"""`Tokenizer`: text to ids and ids to text, of one model. It knows nothing of files; `load_tokenizer` reads them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vcore.errors import RequestError
from vcore.tokenizer.byte_level import token_bytes
from vcore.tokenizer.chat_template import ChatTemplates
from vcore.tokenizer.streams import ByteLevelStream, TokenStream, WindowStream

if TYPE_CHECKING:
    import tokenizers

__all__ = ["Tokenizer"]

_MAX_ID = 2**32 - 1
_BYTE_TOKEN_LENGTH = len("<0x00>")


class Tokenizer:
    """The tokenizer of one model; safe to share between threads.

    Ids and texts are those of transformers' ``AutoTokenizer``, with no tidying of spaces afterwards.
    """

    __slots__ = (
        "_anchor",
        "_backend",
        "_byte_fallback",
        "_byte_level",
        "_bytes",
        "_longest_token",
        "_special_ids",
        "_special_tokens",
        "_templates",
        "_texts",
    )

    def __init__(
        self, backend: tokenizers.Tokenizer, special_tokens: Mapping[str, str], chat_templates: Mapping[str, str]
    ) -> None:
        """Wrap a tokenizer.

        Args:
            backend: of the ``tokenizers`` library; owned by this object from now on.
            special_tokens: such as ``{"eos_token": "</s>"}``.
            chat_templates: Jinja templates by name.
        """
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self._special_tokens = dict(special_tokens)
        self._templates = ChatTemplates(chat_templates, special_tokens)
        added = backend.get_added_tokens_decoder()
        self._special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        decoders = _decoder_types(backend)
        self._byte_level = decoders == ["ByteLevel"]
        self._byte_fallback = "ByteFallback" in decoders
        self._bytes: dict[int, bytes] = {}
        self._texts: dict[int, str] = {}
        self._anchor: list[int] | None = None
        self._longest_token: int | None = None

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, added ones included. The model's embedding may have more rows."""
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    @property
    def bos_token_id(self) -> int | None:
        """The id that begins a text, or None."""
        return self._id_of("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """The id that ends a text, or None. A model may have more of them in its generation config."""
        return self._id_of("eos_token")

    @property
    def all_special_ids(self) -> frozenset[int]:
        """The ids that `decode` leaves out with `skip_special_tokens`."""
        return self._special_ids

    @property
    def special_tokens(self) -> dict[str, str]:
        """The special tokens by role, such as ``{"eos_token": "</s>"}``."""
        return dict(self._special_tokens)

    @property
    def has_chat_template(self) -> bool:
        """Whether the model brought a chat template."""
        return len(self._templates) > 0

    @property
    def chat_templates(self) -> dict[str, str]:
        """The model's own chat templates, Jinja text by name."""
        return self._templates.sources

    def to_json(self) -> str:
        """The tokenizer as the text of a ``tokenizer.json``, for libraries that read one."""
        text: str = self._backend.to_str()
        return text

    def fewest_tokens(self, text: str) -> int:
        """How many tokens `text` has at the least, by its length and the longest token: nothing is tokenised.

        A tokenizer that throws characters away, such as white space, may make fewer of a text that has many of them.
        """
        if self._longest_token is None:
            self._longest_token = max(map(len, self._backend.get_vocab(with_added_tokens=True)))
        return -(-len(text) // self._longest_token)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The token ids of `text`.

        Args:
            text: any text.
            add_special_tokens: add what the model expects around a text, such as a beginning-of-sequence token.

        Raises:
            RequestError: `text` holds a lone surrogate, which no encoding can carry.
        """
        return self.encode_batch([text], add_special_tokens)[0]

    def encode_batch(self, texts: Sequence[str], add_special_tokens: bool = True) -> list[list[int]]:
        """The token ids of each text, computed in parallel; otherwise as `encode`."""
        try:
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=add_special_tokens)
        except (UnicodeEncodeError, TypeError) as error:
            raise _not_text(texts, error) from error
        return [encoding.ids for encoding in encodings]

    def decode(self, token_ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of `token_ids`. Never raises: ids that are in no vocabulary are left out."""
        ids = [token_id for token_id in token_ids if 0 <= token_id <= _MAX_ID]
        return str(self._backend.decode(ids, skip_special_tokens=skip_special_tokens))

    def id_to_token(self, token_id: int) -> str | None:
        """The token as it stands in the vocabulary, such as ``"Ġthe"``; None if there is none."""
        if not 0 <= token_id <= _MAX_ID:
            return None
        token: str | None = self._backend.id_to_token(token_id)
        return token

    def token_to_id(self, token: str) -> int | None:
        """The id of a token as it stands in the vocabulary; None if there is none."""
        token_id: int | None = self._backend.token_to_id(token)
        return token_id

    def id_to_text(self, token_id: int) -> str:
        """The text of one token within a text, special ones and leading space included; for log probabilities.

        Bytes that are no whole character come out as U+FFFD. Texts are kept: log probabilities ask for the same ones
        again and again, thousands at a time.
        """
        text = self._texts.get(token_id)
        if text is None:
            text = self._texts[token_id] = self._id_to_text(token_id)
        return text

    def _id_to_text(self, token_id: int) -> str:
        if self._byte_level:
            return self._token_bytes(token_id).decode("utf-8", errors="replace")
        anchor = self._anchor_ids()
        return self.decode([*anchor, token_id], False)[len(self.decode(anchor, False)) :]

    def id_to_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes of one token within a text, which may be part of a character; otherwise as `id_to_text`."""
        if self._byte_level:
            return self._token_bytes(token_id)
        if self._byte_fallback and self._is_byte(token_id):
            return bytes([int((self.id_to_token(token_id) or "")[3:5], 16)])
        return self.id_to_text(token_id).encode("utf-8")

    def apply_chat_template(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, **variables: Any
    ) -> list[int]:
        """The token ids of a conversation; see `render_chat`."""
        text = self.render_chat(messages, add_generation_prompt, **variables)
        return self.encode(text, add_special_tokens=False)

    def render_chat(
        self, messages: Sequence[Mapping[str, Any]], /, add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The text of a conversation by the model's chat template, special tokens included.

        Args:
            messages: mappings with ``role`` and ``content``.
            add_generation_prompt: end with the beginning of the assistant's answer.
            variables: for the template, such as ``tools``; ``chat_template`` replaces the model's own.

        Raises:
            RequestError: there is no template, or it refuses these messages.
        """
        return self._templates.render(messages, add_generation_prompt=add_generation_prompt, **variables)

    def new_stream(self, prompt_ids: Sequence[int] = (), skip_special_tokens: bool = True) -> TokenStream:
        """An incremental detokeniser for the output that follows `prompt_ids`.

        Its pieces, joined, are ``decode(output_ids)``. Only where the decoder drops a space at the start of a
        text (as SentencePiece's does) and a prompt is given is the space kept, since the text goes on.
        """
        if self._byte_level:
            return ByteLevelStream(self._shown_bytes if skip_special_tokens else self._token_bytes)

        def is_visible(token_id: int) -> bool:
            hidden = skip_special_tokens and token_id in self._special_ids
            return not hidden and self.id_to_token(token_id) is not None

        continues = any(is_visible(token_id) for token_id in prompt_ids)
        return WindowStream(
            lambda ids: self.decode(ids, skip_special_tokens),
            is_visible=is_visible,
            is_byte=self._is_byte if self._byte_fallback else None,
            context=self._anchor_ids() if continues else [],
        )

    def _id_of(self, role: str) -> int | None:
        token = self._special_tokens.get(role)
        return None if token is None else self.token_to_id(token)

    def _token_bytes(self, token_id: int) -> bytes:
        known = self._bytes.get(token_id)
        if known is None:
            token = self.id_to_token(token_id)
            known = self._bytes[token_id] = b"" if token is None else token_bytes(token)
        return known

    def _shown_bytes(self, token_id: int) -> bytes:
        return b"" if token_id in self._special_ids else self._token_bytes(token_id)

    def _is_byte(self, token_id: int) -> bool:
        token = self.id_to_token(token_id) or ""
        return len(token) == _BYTE_TOKEN_LENGTH and token.startswith("<0x") and token.endswith(">")

    def _anchor_ids(self) -> list[int]:
        """A token that is sure to show, to stand before others; none if the vocabulary has no such token."""
        if self._anchor is None:
            self._anchor = next(([i] for i in range(self.vocab_size) if self._is_plain(i)), [])
        return self._anchor

    def _is_plain(self, token_id: int) -> bool:
        if token_id in self._special_ids or self._is_byte(token_id):
            return False
        text = self.decode([token_id])
        return text.isascii() and text.isalnum()


def _decoder_types(backend: tokenizers.Tokenizer) -> list[str]:
    """The kinds of the steps of the tokenizer's decoder; empty if it has none."""
    if backend.decoder is None:
        return []
    state = json.loads(backend.decoder.__getstate__())
    steps = state["decoders"] if state["type"] == "Sequence" else [state]
    return [step["type"] for step in steps]


def _not_text(texts: Sequence[str], error: Exception) -> RequestError:
    for text in texts:
        if not isinstance(text, str):
            return RequestError(f"a prompt's text must be a string, got {type(text).__name__}", param="prompt")
    return RequestError(
        f"the text cannot be encoded as UTF-8 ({error}); it holds a lone surrogate. Decode the original bytes as "
        "UTF-8, or replace it",
        param="prompt",
    )
