"""`grammar_text`: which texts each form lets through, as the library itself judges them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer
from vcore_backends.llguidance.grammars import grammar_text
from vcore_backends.llguidance.options import LLGuidanceOptions

from vcore.structured_output import StructuredOutput


@pytest.fixture(scope="module")
def tokenizer() -> LLTokenizer:
    return LLTokenizer("byte")


TAG = {"begin": '<t>{"n": "f", "a": ', "schema": {"type": "object"}, "end": "}</t>"}
OTHER = {"begin": "<u>", "schema": {"type": "integer"}, "end": "</u>"}
FREE = {"structures": [TAG, OTHER], "triggers": ["<t>", "<u>"]}
ONLY = {"structures": [TAG, OTHER], "required": True, "prefix": "[", "separator": ";", "suffix": "]"}
CALL = '<t>{"n": "f", "a": {"x": 1}}</t>'

CASES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"json_schema": {"type": "integer"}}, ["3", "-12"], ["3.5", '"3"', "", "3 "]),
    ({"json_schema": True}, ["3", "{}", '["a", null]'], ["{", "a"]),
    ({"json_object": True}, ["{}", '{"a": [1, {"b": "é"}]}', '{ "a":\n1}'], ["[]", "3", "{} "]),
    ({"json_object": True, "max_whitespace": 0}, ['{"a":1}'], ['{"a": 1}', "{ }"]),
    ({"json_object": True, "max_whitespace": 2}, ['{  "a":1}'], ['{   "a":1}']),
    ({"json_schema": {"type": "string", "not": {}}, "lenient": True}, ['"a"'], ["1"]),
    ({"regex": r"a/b|c\/d|[/]\n"}, ["a/b", "c/d", "/\n"], ["a", "a/b ", "xa/b"]),
    ({"regex": "a\nb"}, ["a\nb"], ["anb"]),
    ({"regex": "a\\\nb\\\\/"}, ["a\nb\\/"], ["a\\nb"]),
    ({"regex": "x", "after": "a (b) [c]{d}^$.*+?|e \\ -#&~"}, ["a (b) [c]{d}^$.*+?|e \\ -#&~x"], ["x", "a bx"]),
    ({"choice": ["yes", "yes!", 'q"\\\n', "é😀"]}, ["yes", "yes!", 'q"\\\n', "é😀"], ["y", "yes!!", "no"]),
    ({"grammar": 'start: "a" b*\nb: "b" | "c"'}, ["a", "abcb"], ["b", "ad"]),
    ({"grammar": 'root ::= "x" [0-9]+'}, ["x1", "x12"], ["x", "y1"]),
    ({"structural_tag": FREE}, ["no tags < at all", f"so {CALL} and <u>3</u>!", CALL * 2], ["<t>", "so <u>x</u>"]),
    ({"structural_tag": ONLY}, [f"[{CALL}]", f"[{CALL};<u>3</u>;{CALL}]"], ["[]", CALL, f"[{CALL} {CALL}]"]),
    ({"structural_tag": {**ONLY, "most": 1}}, [f"[{CALL}]"], [f"[{CALL};{CALL}]"]),
    ({"structural_tag": {**ONLY, "most": 2}}, [f"[{CALL}]", f"[{CALL};{CALL}]"], [f"[{CALL};{CALL};{CALL}]"]),
    ({"regex": "[0-9]+", "after": "</think>"}, ["hm </th \n</think>12", "</think>1"], ["12", "</think>", "</think>b"]),
    ({"json_object": True, "after": "."}, ["so.{}"], ["{}"]),
    ({"structural_tag": ONLY, "after": "/a\n(b"}, [f"x/a\n(b[{CALL}]"], [f"[{CALL}]"]),
    ({"grammar": 'start: "a" b\nb: "b"', "after": "!"}, ["x!ab"], ["ab"]),
]  # fmt: skip


def accepts(tokenizer: LLTokenizer, grammar: str, text: str) -> bool:
    matcher = LLMatcher(tokenizer, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    return matcher.consume_tokens(tokenizer.tokenize_str(text)) and matcher.is_accepting()


@pytest.mark.parametrize(("options", "good", "bad"), CASES, ids=[json.dumps(case[0])[:60] for case in CASES])
def test_a_form_lets_through_its_texts_and_no_others(
    tokenizer: LLTokenizer, options: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    fields = {key: value for key, value in options.items() if key not in ("max_whitespace", "lenient")}
    form = StructuredOutput(**fields).model_dump(exclude_defaults=True)
    grammar = grammar_text(LLGuidanceOptions(**{**options, **form}))
    assert grammar is not None
    assert [text for text in good if not accepts(tokenizer, grammar, text)] == []
    assert [text for text in bad if accepts(tokenizer, grammar, text)] == []


def test_without_a_form_there_is_no_grammar() -> None:
    assert grammar_text(LLGuidanceOptions()) is None


def test_a_schema_that_sets_the_compilers_own_key_keeps_it() -> None:
    schema = {"type": "object", "x-guidance": {"whitespace_flexible": False}}
    grammar = grammar_text(LLGuidanceOptions(json_schema=json.dumps(schema)))
    assert json.loads(grammar or "")["grammars"][0]["json_schema"] == schema
