"""Pages of the site whose source lies outside of ``docs/``, or is made from code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PAGES = {
    "changelog.md": ROOT / "CHANGELOG.md",
    "contributing.md": ROOT / "CONTRIBUTING.md",
    "reference/embedded-models.md": ROOT / "core/gpurerank/models/weights/MODEL_CARD.md",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lists the notebooks under their heading."""
    pages = [{_title(path): f"notebooks/{path.stem}.md"} for path in NOTEBOOKS]
    for entry in config.nav or []:
        if "Notebooks" in entry:
            entry["Notebooks"] = pages
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    for uri, path in PAGES.items():
        files.append(File.generated(config, uri, content=path.read_text(encoding="utf-8")))
    for path in NOTEBOOKS:
        for name, content in _notebook(path).items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    commands = File.generated(config, "reference/command-line.md", content=_command_line())
    files.append(commands)
    return files


def _title(path: Path) -> str:
    heading = re.search(r'"# (.+?)(?:\\n)?"', path.read_text(encoding="utf-8"))
    return heading[1] if heading else path.stem


def _notebook(path: Path) -> dict[str, str | bytes]:
    """The page and the pictures of a notebook, by file name."""
    text, resources = MarkdownExporter().from_filename(
        str(path), resources={"unique_key": path.stem, "output_files_dir": path.stem}
    )
    linked = re.sub(r"(\]\(\w+)\.ipynb\)", r"\1.md)", text)
    return {f"{path.stem}.md": linked, **resources["outputs"]}


def _command_line() -> str:
    """What ``--help`` says, as Typer writes it."""
    command = [
        sys.executable,
        "-m",
        "typer",
        "gpurerank.cli",
        "utils",
        "docs",
        "--name",
        "gpurerank",
    ]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
