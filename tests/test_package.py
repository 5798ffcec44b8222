"""The package as it ships: its names, its arrows, what importing it loads, what its wheel holds."""

from __future__ import annotations

import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.time_limits import HANG_S

ROOT = Path(__file__).parent.parent
PACKAGES = ("gpurerank", "langchain_gpurerank", "llamaindex_gpurerank")


def python(script: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=HANG_S
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_loads_no_torch(package: str) -> None:
    script = f"import {package}, sys; print(*{{'torch', 'transformers'}} & set(sys.modules))"
    assert python(script) == ""


@pytest.mark.parametrize("package", PACKAGES)
def test_all_is_sorted_and_resolves(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__module__.split(".")[0] == package
    with pytest.raises(AttributeError, match="nonsense"):
        module.nonsense  # noqa: B018


def test_public_names_are_these() -> None:
    import gpurerank
    import langchain_gpurerank
    import llamaindex_gpurerank

    promised = {"Reranker", "CrossEncoder", "BiEncoder", "Cascade", "RankedPassage"}
    assert promised <= set(gpurerank.__all__)
    assert set(gpurerank._HOME_OF) == set(gpurerank.__all__)
    assert langchain_gpurerank.__all__ == [
        "GPUCrossEncoder",
        "GPUEmbeddings",
        "GPURerank",
        "RerankRetriever",
        "as_search",
        "rerank",
    ]
    assert llamaindex_gpurerank.__all__ == ["GPUEmbedding", "GPURerank", "as_search"]


def test_arrows_point_one_way() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [str(lint), "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=HANG_S
    )
    assert result.returncode == 0, result.stdout


def test_torch_is_imported_in_three_packages_alone() -> None:
    allowed = ("benchmark/", "models/", "training/", "doctor.py")
    root = ROOT / "core" / "gpurerank"
    for path in root.rglob("*.py"):
        inside = str(path.relative_to(root))
        text = path.read_text(encoding="utf-8")
        if not inside.startswith(allowed):
            assert "import torch" not in text, inside
            assert "transformers" not in text.replace("sentence-transformers", ""), inside


def test_plugins_use_public_names_alone() -> None:
    for package in PACKAGES[1:]:
        for path in (ROOT / package).glob("*.py"):
            for line in path.read_text(encoding="utf-8").splitlines():
                assert not line.startswith("from gpurerank."), f"{path.name}: {line}"


def test_wheel_holds_three_packages_and_their_files(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=HANG_S,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == set(PACKAGES)
    for wanted in (
        *(f"{package}/py.typed" for package in PACKAGES),
        "gpurerank/models/weights/cross_encoder_delta.safetensors",
        "gpurerank/models/weights/cross_encoder_delta.sha256",
        "gpurerank/models/weights/MODEL_CARD.md",
        "gpurerank/models/weights/blend.json",
        "gpurerank/training/training_run.py",
        "gpurerank/demo/results_table.py",
        "gpurerank/evaluation/templates/report.html.j2",
        "gpurerank/evaluation/templates/report.css",
        "gpurerank/server/page/index.html",
        "gpurerank/server/page/page.css",
        "gpurerank/server/page/page.js",
    ):
        assert wanted in names
    assert wheel.stat().st_size < 25_000_000
