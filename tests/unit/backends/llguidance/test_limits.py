"""Forms that are too large to compile are refused; what the limits let through harms no process."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import Any

import pytest
from vcore_backends.llguidance.deep_stack import with_deep_stack
from vcore_backends.llguidance.limits import (
    MAX_FORM,
    MAX_PATTERN,
    MAX_PATTERN_PROPERTIES,
    MAX_PROPERTIES,
    check_limits,
)
from vcore_backends.llguidance.options import LLGuidanceOptions

COMPILE = """
import json, sys, torch
from vcore_backends.llguidance.processor import LLGuidanceProcessor
from vcore.interfaces.logits import LogitsProcessorContext
from vcore.testing.scripted_engine import EOS, byte_tokenizer

context = LogitsProcessorContext(
    device=torch.device("cpu"), tokenizer=byte_tokenizer(), vocab_size=260, max_num_seqs=1, eos_token_ids=(EOS,)
)
processor = LLGuidanceProcessor(options=None, context=context)
for line in sys.stdin:
    assert not processor.prepare(json.loads(line)).deep_copy().is_error()
print("compiled")
"""


def chain_of_references() -> str:
    """As many definitions as fit, each of which needs the next."""
    links = {str(number): {"$ref": f"#/$defs/{number + 1}"} for number in range(MAX_FORM // 34)}
    return json.dumps({"$ref": "#/$defs/0", "$defs": {**links, str(len(links)): {"type": "string"}}})


def chain_of_rules() -> str:
    rules = [f'r{number}: r{number + 1} "x"' for number in range(MAX_FORM // 20)]
    return "\n".join(["start: r0", *rules, f'r{len(rules)}: "z"'])


def test_the_deepest_forms_that_are_taken_do_not_end_the_process() -> None:
    forms = [{"json_schema": chain_of_references()}, {"grammar": chain_of_rules()}]
    for form in forms:
        check_limits(LLGuidanceOptions.model_validate(form))
    lines = "\n".join(map(json.dumps, forms))
    result = subprocess.run([sys.executable, "-c", COMPILE], input=lines, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "compiled\n"), result.stderr[-2000:]


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"regex": "a" * (MAX_PATTERN + 1)}, "expression"),
        ({"choice": ["a" * 1000] * (MAX_FORM // 1000 + 1)}, "choice"),
        ({"grammar": "start: A\n" * (MAX_FORM // 9 + 1)}, "grammar"),
        ({"grammar": f"start: /{'a' * MAX_PATTERN}/"}, "line of the grammar"),
        ({"json_schema": json.dumps({"title": "a" * MAX_FORM})}, "schema"),
        ({"json_schema": json.dumps({"items": [{"pattern": "a" * (MAX_PATTERN + 1)}]})}, "pattern of the schema"),
        ({"json_schema": json.dumps({"properties": dict.fromkeys(map(str, range(MAX_PROPERTIES + 1)), True)})}, "prop"),
        (
            {"json_schema": json.dumps({"patternProperties": dict.fromkeys(map(str, range(101)), True)})},
            f"101 patternProperties; at most {MAX_PATTERN_PROPERTIES}",
        ),
        (
            {"structural_tag": {"structures": [{"begin": f"<{i}>", "schema": {"title": "a" * 50_000}} for i in "abc"]}},
            "all schemas",
        ),
    ],
)
def test_what_is_too_large_is_refused_before_it_is_compiled(form: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_limits(LLGuidanceOptions.model_validate(form))


def test_properties_that_are_called_like_keywords_are_no_keywords() -> None:
    schema = {"type": "object", "properties": {"pattern": {"type": "string"}, "properties": {"type": "integer"}}}
    check_limits(LLGuidanceOptions(json_schema=json.dumps(schema)))


def test_a_deep_stack_gives_back_results_and_errors_and_leaves_other_threads_as_they_were() -> None:
    before = threading.stack_size()
    assert with_deep_stack(lambda: threading.current_thread().name) == "vcore-deep-stack"
    with pytest.raises(ZeroDivisionError):
        with_deep_stack(lambda: 1 // 0)
    assert threading.stack_size() == before
