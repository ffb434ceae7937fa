"""What is read from installed metadata, and what of it is judged."""

from __future__ import annotations

from pathlib import Path

import pytest

from vcore.plugins.distributions import (
    CORE_DISTRIBUTION,
    PluginDistribution,
    canonical_name,
    engine_requirement_problem,
    plugin_distributions,
    requirement_problem,
)
from vcore.testing.distributions import write_distribution
from vcore.version import __version__


def found(name: str) -> PluginDistribution:
    [distribution] = [one for one in plugin_distributions() if canonical_name(one.name) == canonical_name(name)]
    return distribution


def test_names_compare_canonically() -> None:
    assert canonical_name("Acme_Vcore.Plugins") == "acme-vcore-plugins"


def test_an_installed_distribution(site: Path) -> None:
    write_distribution(site, "Acme_Lru", version="2.1", entry_points={"lru": "acme.plugin"}, requires=["numpy>=1"])
    distribution = found("acme-lru")
    assert (distribution.name, distribution.version, distribution.requires) == ("Acme_Lru", "2.1", ("numpy>=1",))
    assert [(point.name, point.value) for point in distribution.entry_points] == [("lru", "acme.plugin")]
    assert not distribution.is_core


def test_other_groups_are_not_ours(site: Path) -> None:
    write_distribution(site, "acme-other", entry_points={"x": "acme"}, group="vcore.other")
    assert "acme-other" not in [one.name for one in plugin_distributions()]


def test_the_core_comes_first(site: Path) -> None:
    write_distribution(site, "aaa-acme", entry_points={"x": "acme"})
    names = [one.name for one in plugin_distributions()]
    assert names.index("aaa-acme") == 1
    assert names[0] == CORE_DISTRIBUTION


def test_the_first_on_the_path_hides_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("1.0", "2.0"):
        folder = tmp_path / version
        write_distribution(folder, "acme-twice", version=version, entry_points={"x": "acme"})
        monkeypatch.syspath_prepend(str(folder))
    assert found("acme-twice").version == "2.0"


def test_one_hidden_by_a_version_without_plugins_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_distribution(tmp_path / "far", "acme-moved", version="1.0", entry_points={"x": "acme"})
    write_distribution(tmp_path / "near", "acme-moved", version="2.0", entry_points={"x": "acme"}, group="elsewhere")
    monkeypatch.syspath_prepend(str(tmp_path / "far"))
    monkeypatch.syspath_prepend(str(tmp_path / "near"))
    assert "acme-moved" not in [one.name for one in plugin_distributions()]


def test_unreadable_metadata_becomes_an_error(site: Path) -> None:
    write_distribution(site, "acme-nameless", entry_points={"x": "acme"})
    (site / "acme_nameless-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\n", encoding="utf-8")
    [broken] = [one for one in plugin_distributions() if one.error is not None]
    assert "acme_nameless-1.0.dist-info" in broken.name
    assert broken.entry_points == ()


def test_undecodable_entry_points_are_passed_over(site: Path) -> None:
    write_distribution(site, "acme-binary", entry_points={"x": "acme"})
    (site / "acme_binary-1.0.dist-info" / "entry_points.txt").write_bytes(b"[vcore]\n\xff\xfe = x\n")
    assert "acme-binary" not in [one.name for one in plugin_distributions()]


def requiring(*lines: str) -> PluginDistribution:
    return PluginDistribution(name="acme", version="1.0", requires=lines, entry_points=())


@pytest.mark.parametrize(
    "line",
    [
        "numpy>=1",
        "vcore-engine",
        f"vcore_engine=={__version__}",
        "vcore-engine>=999; python_version<'3'",
        "vcore-engine>=999; extra == 'next'",
        "vcore-engine-tools>=999",
        "vcore-engine >> 3",
    ],
)
def test_requirements_that_do_not_exclude_us(line: str) -> None:
    assert engine_requirement_problem(requiring(line)) is None


def test_a_requirement_that_excludes_us() -> None:
    problem = engine_requirement_problem(requiring("numpy", "vcore_engine>=999"))
    assert problem is not None
    assert "acme 1.0 requires vcore_engine>=999" in problem
    assert f"this is vcore-engine {__version__}" in problem
    assert "pip install 'vcore-engine>=999'" in problem


@pytest.mark.parametrize("text", ["pluggy", "pluggy>=1", "absent-package; python_version<'3'"])
def test_requirements_that_are_met(text: str) -> None:
    assert requirement_problem(text) is None


def test_a_requirement_that_is_not_installed() -> None:
    problem = requirement_problem("acme-absent>=2")
    assert problem == "it requires acme-absent>=2, which is not installed; `pip install 'acme-absent>=2'`"


def test_a_requirement_of_another_version(site: Path) -> None:
    write_distribution(site, "acme-old", version="1.5")
    assert "but acme-old 1.5 is installed; `pip install 'acme-old>=2'`" in (requirement_problem("acme-old>=2") or "")


def test_what_is_no_requirement() -> None:
    with pytest.raises(ValueError, match="not a PEP 508 requirement"):
        requirement_problem("??")
