"""Which contract versions are served, and what the refusal says."""

from __future__ import annotations

import pytest

from vcore.plugins import SERVED_APIS, ApiVersion, PluginKind, ServedApi
from vcore.plugins.api_versions import api_problem

KIND = PluginKind.EVICTION_POLICY


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """This vcore serves eviction policies of 2.3, and of 1.x through an adapter."""
    monkeypatch.setitem(SERVED_APIS, KIND, ServedApi(ApiVersion(2, 3), previous_adapter="json:loads"))


def test_every_kind_is_served() -> None:
    assert set(SERVED_APIS) == set(PluginKind)


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("stated", ["2.0", "2.3", "1.0", "1.99"])
def test_this_major_and_the_previous_one_are_served(stated: str) -> None:
    assert api_problem(KIND, stated, "acme") is None


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize(
    ("stated", "remedy"),
    [
        ("2.4", "upgrade vcore-engine"),
        ("3.0", "upgrade vcore-engine, or install an older version of acme"),
        ("0.9", "upgrade acme, or ask its authors to port it"),
    ],
)
def test_any_other_is_refused_with_the_way_out(stated: str, remedy: str) -> None:
    problem = api_problem(KIND, stated, "acme")
    assert problem is not None
    assert f"API {stated}" in problem
    assert "serves 2.x and 1.x up to 2.3" in problem
    assert problem.endswith(remedy)


def test_without_an_adapter_the_previous_major_is_refused() -> None:
    assert "upgrade acme" in (api_problem(KIND, "0.1", "acme") or "")


@pytest.mark.parametrize("text", ["1", "1.0.0", "v1.0", "1.x", "01.0", ""])
def test_a_version_is_major_dot_minor(text: str) -> None:
    with pytest.raises(ValueError, match=r"MAJOR\.MINOR"):
        ApiVersion.parse(text)
