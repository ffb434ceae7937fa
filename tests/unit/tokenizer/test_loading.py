"""Reading tokenizers from folders of every form."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
from tokenizers.processors import TemplateProcessing

from vcore.errors import ModelError, ModelNotFoundError, UnsupportedModelError
from vcore.tokenizer import load_tokenizer

Save = Callable[..., Path]
Builder = Callable[[], tokenizers.Tokenizer]


def test_special_tokens_are_read_in_both_forms(save: Save, byte_level_backend: Builder) -> None:
    tokenizer = load_tokenizer(
        save(
            byte_level_backend(),
            tokenizer_config={"bos_token": {"content": "<s>", "lstrip": False}, "eos_token": "</s>"},
        )
    )
    assert (tokenizer.id_to_token(tokenizer.bos_token_id or -1), tokenizer.eos_token_id) == (
        "<s>",
        tokenizer.token_to_id("</s>"),
    )


def test_the_tokenizer_config_outranks_the_special_tokens_map(save: Save, byte_level_backend: Builder) -> None:
    path = save(byte_level_backend(), special_tokens_map={"eos_token": "<s>"}, tokenizer_config={"eos_token": "</s>"})
    assert load_tokenizer(path).special_tokens == {"eos_token": "</s>"}


@pytest.mark.parametrize("stated", [True, False, None])
def test_what_goes_around_a_text_is_what_transformers_puts_there(
    save: Save, byte_level_backend: Builder, stated: bool | None
) -> None:
    from transformers import AutoTokenizer

    backend = byte_level_backend()
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))])
    config: dict[str, object] = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "TokenizersBackend"}
    if stated is not None:
        config["add_bos_token"] = stated
    path = save(backend, tokenizer_config=config)
    tokenizer = load_tokenizer(path)
    assert tokenizer.encode("ab") == AutoTokenizer.from_pretrained(path).encode("ab")
    assert tokenizer.encode("ab")[0] == tokenizer.bos_token_id
    assert tokenizer.encode("ab", add_special_tokens=False) == tokenizer.encode("ab")[1:]


def test_tokens_that_only_the_configuration_names_are_added(save: Save, byte_level_backend: Builder) -> None:
    config = {"added_tokens_decoder": {"900": {"content": "<tool>", "special": True}}, "pad_token": "<pad>"}
    tokenizer = load_tokenizer(save(byte_level_backend(), tokenizer_config=config))
    tool, pad = tokenizer.token_to_id("<tool>"), tokenizer.token_to_id("<pad>")
    assert tokenizer.encode("<tool><pad>") == [tool, pad]
    assert tokenizer.decode([tool, pad]) == ""  # type: ignore[list-item]


def test_chat_templates_are_found_in_every_place(save: Save, byte_level_backend: Builder) -> None:
    path = save(byte_level_backend(), tokenizer_config={"chat_template": [{"name": "tool_use", "template": "t"}]})
    (path / "chat_template.jinja").write_text("d", encoding="utf-8")
    tokenizer = load_tokenizer(path)
    messages = [{"role": "user", "content": "hi"}]
    assert (tokenizer.render_chat(messages), tokenizer.render_chat(messages, tools=[{}])) == ("d", "t")
    (path / "chat_template.jinja").unlink()
    (path / "additional_chat_templates").mkdir()
    (path / "additional_chat_templates" / "default.jinja").write_text("e", encoding="utf-8")
    assert load_tokenizer(path).render_chat(messages) == "e"


def test_no_transformers_where_there_is_a_tokenizer_json(save: Save, byte_level_backend: Builder) -> None:
    path = save(byte_level_backend(), tokenizer_config={"chat_template": "{{ messages[0].content }}"})
    script = (
        "import sys; from pathlib import Path; from vcore.tokenizer import load_tokenizer\n"
        f"load_tokenizer(Path({str(path)!r})).encode('hi')\n"
        "print(sorted({'torch', 'transformers', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_folder_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no folder .*absent"):
        load_tokenizer(tmp_path / "absent")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelNotFoundError, match=r"found config\.json.*skip_tokenizer"):
        load_tokenizer(tmp_path)


def test_damaged_files_are_named(save: Save, byte_level_backend: Builder) -> None:
    path = save(byte_level_backend())
    (path / "tokenizer_config.json").write_text("{oops", encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json is no valid JSON"):
        load_tokenizer(path)
    (path / "tokenizer_config.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ModelError, match=r"must hold a JSON object, got list"):
        load_tokenizer(path)
    for shape in (
        {"added_tokens_decoder": {"x": {"content": "<a>"}}},
        {"added_tokens_decoder": {"9": {}}},
        {"added_tokens_decoder": [1]},
        {"bos_token": {"text": "<s>"}},
        {"chat_template": ["{{ x }}"]},
    ):
        (path / "tokenizer_config.json").write_text(json.dumps(shape), encoding="utf-8")
        with pytest.raises(ModelError, match=r"tokenizer_config\.json or .* has another shape"):
            load_tokenizer(path)
    (path / "tokenizer_config.json").unlink()
    (path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(ModelError, match=r"chat_template\.jinja is no UTF-8 text"):
        load_tokenizer(path)
    whole = (path / "tokenizer.json").read_bytes()
    (path / "tokenizer.json").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"tokenizer\.json \([\d,]+ bytes\) is no tokenizer"):
        load_tokenizer(path)


def test_other_forms_go_through_transformers(tmp_path: Path, byte_level_backend: Builder) -> None:
    backend = byte_level_backend()
    backend.model.save(str(tmp_path))  # vocab.json and merges.txt, as GPT-2 came in
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "GPT2Tokenizer", "bos_token": "a", "eos_token": "b", "unk_token": "c"}', encoding="utf-8"
    )
    tokenizer = load_tokenizer(tmp_path)
    ids = tokenizer.encode("hi é")
    assert tokenizer.decode(ids) == "hi é"
    assert ids == backend.encode("hi é").ids


def test_a_tokenizer_that_nothing_converts(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"no sentencepiece model")
    with pytest.raises(UnsupportedModelError, match=r"save_pretrained"):
        load_tokenizer(tmp_path)
