"""Which entry of a table of kernel configurations is taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from vcore_backends.config_tables import ConfigTables


def test_the_first_entry_that_fits_is_taken(tmp_path: Path):
    path = tmp_path / "configs.json"
    entries = [{"limits": {"rows": 4, "size": 8}, "use": {"block": 1}}, {"limits": {"rows": 16}, "use": {"block": 2}}]
    path.write_text(json.dumps({"tables": {"decode": entries}}), encoding="utf-8")
    tables = ConfigTables(path)
    assert tables.first_fit("decode", {"rows": 4, "size": 8}) == {"block": 1}
    assert tables.first_fit("decode", {"rows": 4, "size": 9}) == {"block": 2}
    with pytest.raises(LookupError, match=r"configs.json has no decode entry for \{'rows': 17.*should have no limits"):
        tables.first_fit("decode", {"rows": 17, "size": 1})
