"""The notebooks as they are committed: with their outputs, and without traces of a machine."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
MACHINE = re.compile(r"/(?:home|root|tmp|Users|work|usr/lib|opt)/|site-packages|Traceback")


def cells(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def test_outputs_are_kept_and_clean() -> None:
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        assert path.stat().st_size < 500_000, path.name
        code = [cell for cell in cells(path) if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
        outputs = [output for cell in code for output in cell["outputs"]]
        assert any("image/png" in output.get("data", {}) for output in outputs), path.name
        assert all(cell["metadata"] == {} for cell in code), "see make notebook-outputs"
        for output in outputs:
            assert output["output_type"] != "error", path.name
            assert output.get("name") != "stderr", path.name
            told = {k: v for k, v in output.get("data", output).items() if k != "image/png"}
            assert not MACHINE.search(json.dumps(told)), told


def test_prose_names_no_time_of_a_machine() -> None:
    for path in NOTEBOOKS:
        prose = "\n".join("".join(c["source"]) for c in cells(path) if c["cell_type"] == "markdown")
        assert not re.search(r"\d\s?(?:ms|seconds)\b", prose), path.name
