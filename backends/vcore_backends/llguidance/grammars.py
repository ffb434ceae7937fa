"""`grammar_text`: a form of text in the notation that llguidance compiles, its JSON of named grammars.

    {"grammars": [{"name": "start", "lark_grammar": "start: ... @body"}, {"name": "body", "json_schema": {...}}]}

The first grammar is where a text begins; a grammar in Lark refers to another by ``@name``.
"""

from __future__ import annotations

import json
import re
from typing import Any

from llguidance.gbnf_to_lark import any_to_lark

from vcore.structured_output import StructuralTag
from vcore_backends.llguidance.options import LLGuidanceOptions

__all__ = ["grammar_text"]

_ANY_TEXT = r"/(.|\n)*/"
_NOT_IN_LARK = re.compile(r"\\.|/|\n", re.DOTALL)
"""Escapes, which are left whole, and what may not stand in an expression of Lark."""
_IN_LARK = {"/": r"\/", "\n": r"\n", "\\\n": r"\n"}
_META = re.compile(r"[\\.+*?()|\[\]{}^$]")


def grammar_text(options: LLGuidanceOptions) -> str | None:
    """The grammar of the form that `options` state; None if they state none.

    Raises:
        ValueError: a grammar cannot be read. Most faults are found only when the grammar is compiled.
    """
    body = _body(options)
    if body is None:
        return None
    grammars = [{"name": "body", **body}]
    if options.structural_tag is not None:
        grammars += [
            {"name": f"schema_{i}", "json_schema": _schema(tag.schema_value, options)}
            for i, tag in enumerate(options.structural_tag.structures)
        ]
    if options.after:
        grammars.insert(0, {"name": "start", "lark_grammar": _after(options.after)})
    return json.dumps({"grammars": grammars}, ensure_ascii=False)


def _body(options: LLGuidanceOptions) -> dict[str, Any] | None:
    if options.json_schema is not None:
        return {"json_schema": _schema(json.loads(options.json_schema), options)}
    if options.json_object:
        return {"json_schema": _schema({"type": "object"}, options)}
    if options.regex is not None:
        return {"lark_grammar": f"start: {_regex(options.regex)}"}
    if options.choice is not None:
        return {"lark_grammar": "start: " + " | ".join(map(_literal, options.choice))}
    if options.grammar is not None:
        return {"lark_grammar": any_to_lark(options.grammar)}
    if options.structural_tag is not None:
        tag = options.structural_tag
        return {"lark_grammar": _required_tags(tag) if tag.required else _free_tags(tag)}
    return None


def _schema(schema: Any, options: LLGuidanceOptions) -> Any:
    """The schema with the compiler's own key, unless the request wrote one."""
    if isinstance(schema, bool):
        # What fits `true` is any JSON; `false` is left for the compiler to refuse.
        if not schema:
            return schema
        schema = {}
    own: dict[str, Any] = {"lenient": options.lenient}
    if options.max_whitespace:
        own["whitespace_pattern"] = f"[ \\n\\r\\t]{{1,{options.max_whitespace}}}"
    else:
        own["whitespace_flexible"] = False
    return {"x-guidance": own, **schema}


def _after(marker: str) -> str:
    """Any text up to the first appearance of `marker`, then the body."""
    return f"start: head @body\nhead[lazy]: {_up_to(marker)}\n"


def _required_tags(tag: StructuralTag) -> str:
    """Tags alone: prefix, at least one tag with separators between them, suffix."""
    more = "" if tag.most == 1 else f" ({_literal(tag.separator)} one){'*' if tag.most is None else _at_most(tag.most)}"
    rules = [f"start: {_literal(tag.prefix)} one{more} {_literal(tag.suffix)}"]
    rules.append("one: " + " | ".join(f"tag_{i}" for i in range(len(tag.structures))))
    for i, one in enumerate(tag.structures):
        rules.append(f"tag_{i}: {_literal(one.begin)} @schema_{i} {_literal(one.end)}")
    return "\n".join(rules) + "\n"


def _at_most(most: int) -> str:
    return f"{{0,{most - 1}}}"


def _free_tags(tag: StructuralTag) -> str:
    """Any text; wherever a trigger appears in it, a tag of that trigger goes on."""
    triggers = list(dict.fromkeys(map(tag.trigger_of, tag.structures)))
    rules = ["start: (" + " | ".join(f"after_{i}" for i in range(len(triggers))) + ")* rest", f"rest: {_ANY_TEXT}"]
    for i, trigger in enumerate(triggers):
        ways = []
        for j, one in enumerate(tag.structures):
            if tag.trigger_of(one) == trigger:
                ways.append(f"{_literal(one.begin[len(trigger) :])} @schema_{j} {_literal(one.end)}")
        rules.append(f"trigger_{i}[lazy]: {_up_to(trigger)}")
        rules.append(f"after_{i}: trigger_{i} ({' | '.join(ways)})")
    return "\n".join(rules) + "\n"


def _literal(text: str) -> str:
    """A literal of Lark, which is one of JSON."""
    return json.dumps(text, ensure_ascii=False)


def _regex(pattern: str) -> str:
    """An expression of Lark: between slashes, on one line, with slashes in it escaped."""
    return f"/{_NOT_IN_LARK.sub(lambda match: _IN_LARK.get(match[0], match[0]), pattern)}/"


def _up_to(marker: str) -> str:
    """An expression for any text up to the first appearance of `marker`, for a rule that is lazy."""
    return _regex(r"(.|\n)*" + _META.sub(r"\\\g<0>", marker))
