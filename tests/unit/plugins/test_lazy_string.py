"""Lazy strings name what they say, and a file's own attributes."""

from __future__ import annotations

import collections
import sys
import types

import pytest

from vcore.plugins.lazy_string import check_lazy_string, load_lazy_string


@pytest.mark.parametrize("text", ["a:B", "a.b.c:D", "a.b:C.d", "_a:_b"])
def test_well_formed(text: str) -> None:
    assert check_lazy_string(text, own_module=False) is None


@pytest.mark.parametrize("text", ["", "a", "a:", "a.:B", ".a:B", "a b:C", "a:B:C", "a-b:C", "1a:B", "a:B()", ":B"])
def test_malformed(text: str) -> None:
    assert "is not of the form 'package.module:Attribute'" in (check_lazy_string(text, own_module=False) or "")


def test_attributes_of_attributes() -> None:
    assert load_lazy_string("collections:OrderedDict.fromkeys") == collections.OrderedDict.fromkeys


@pytest.mark.parametrize("text", [":Thing", "mine:Thing"])
def test_the_registration_module_itself(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("generated_name")
    module.Thing = 5  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "generated_name", module)
    assert load_lazy_string(text, home="generated_name", home_alias="mine") == 5


def test_a_missing_attribute() -> None:
    with pytest.raises(AttributeError, match="Nope"):
        load_lazy_string("collections:Nope")
