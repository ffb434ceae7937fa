"""`ProcessorOptions` over a real catalog, with a plugin that was given as an object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from vcore.config import PluginChoice, PluginOptions, PluginsConfig
from vcore.engine.processor_options import ProcessorOptions
from vcore.errors import RequestError
from vcore.plugins import Catalog, LogitsProcessorSpec, discover, hookimpl
from vcore.sampling_params import LogitsProcessorRequest
from vcore.structured_output import StructuredOutput


class Options(PluginOptions):
    k: int = 3


class FormOptions(PluginOptions):
    regex: str | None = None
    after: str = ""
    spaces: int = 3


def make_nothing(*, options: object, context: object) -> object:
    return object()


class Plugin:
    @hookimpl
    def vcore_logits_processors(self) -> Sequence[LogitsProcessorSpec]:
        return [
            LogitsProcessorSpec(name="keep", load=make_nothing, api="1.0", options=Options),
            LogitsProcessorSpec(
                name="forms",
                load=make_nothing,
                api="1.0",
                options=FormOptions,
                structured_output=frozenset({"regex", "choice"}),
            ),
            LogitsProcessorSpec(name="plain", load=make_nothing, api="1.0"),
            LogitsProcessorSpec(name="absent", load="no_such_package_at_all:Thing", api="1.0"),
        ]


@pytest.fixture(scope="module")
def checker() -> ProcessorOptions:
    catalog: Catalog = discover(PluginsConfig(), objects=[Plugin()])
    return ProcessorOptions(catalog)


def test_options_are_checked_and_filled_in(checker: ProcessorOptions) -> None:
    def check(name: str, **options: Any) -> dict[str, Any]:
        return checker.check(LogitsProcessorRequest(name=name, options=options)).options

    assert check("keep") == {"k": 3}
    assert check("keep", k=5) == {"k": 5}
    assert check("plain") == {}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("keap", {}, "did you mean 'keep'"),
        ("os:system", {}, "os:system"),
        ("no_such_package_at_all:Thing", {}, "no_such_package_at_all:Thing"),
        ("", {}, "logits_processor"),
        ("absent", {}, "no_such_package_at_all"),
        ("keep", {"j": 1}, "j"),
        ("keep", {"k": "many"}, "many"),
        ("plain", {"k": 1}, "k"),
    ],
)
def test_what_cannot_be_used_is_a_request_error(
    checker: ProcessorOptions, name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        checker.check(LogitsProcessorRequest(name=name, options=options))
    assert caught.value.param == "logits_processors"


def test_where_it_runs_elsewhere_a_processor_is_not_imported(checker: ProcessorOptions) -> None:
    asked = LogitsProcessorRequest(name="absent")
    assert ProcessorOptions(checker._catalog, loads=False).check(asked) == asked


class TestForms:
    @staticmethod
    def options(checker: ProcessorOptions, choice: PluginChoice | None) -> ProcessorOptions:
        return ProcessorOptions(checker._catalog, choice)

    def test_a_form_is_served_by_the_configured_processor_with_its_options(self, checker: ProcessorOptions) -> None:
        options = self.options(checker, PluginChoice(name="forms", options={"spaces": 5}))
        asked = options.for_structured_output(StructuredOutput(regex="a+", after="!"))
        assert asked == LogitsProcessorRequest(name="forms", options={"regex": "a+", "after": "!", "spaces": 5})

    @pytest.mark.parametrize(
        ("choice", "form", "param", "message"),
        [
            (None, {"regex": "a"}, "structured_output.regex", r"sampling\.structured_output is none"),
            ("forms", {"json_object": True}, "structured_output.json_object", "takes choice, regex, not json_object"),
            ("keep", {"regex": "a"}, "structured_output.regex", "takes no form, not regex"),
            ("forms", {"choice": ["a"]}, "structured_output.choice", "options do not fit"),
            ("absent", {"regex": "a"}, "structured_output.regex", "no_such_package_at_all"),
        ],
    )
    def test_a_form_that_cannot_be_served_is_a_request_error(
        self, checker: ProcessorOptions, choice: str | None, form: dict[str, Any], param: str, message: str
    ) -> None:
        options = self.options(checker, None if choice is None else PluginChoice(name=choice))
        with pytest.raises(RequestError, match=message) as caught:
            options.for_structured_output(StructuredOutput(**form))
        assert caught.value.param == param
