"""The JSON Schema that the experiments name in their first line, for editors."""

from __future__ import annotations

import json
from pathlib import Path

from simnet.config.schema import json_schema


def test_the_schema_beside_the_experiments_is_current(repository: Path) -> None:
    written = json.loads((repository / "experiments" / "simnet.schema.json").read_text())
    assert written == json_schema()  # else: simnet schema > experiments/simnet.schema.json
