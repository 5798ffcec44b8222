"""What the name of a model is: a path of this machine, or something to look up."""

from __future__ import annotations

from pathlib import Path

from gpurerank.errors import ModelNotFoundError


def is_path(name: str) -> bool:
    """Whether a name can only be a path: a hub id is ``name`` or ``owner/name``.

    Example:
        >>> is_path("/models/reranker"), is_path("./reranker"), is_path("BAAI/bge-m3")
        (True, True, False)
    """
    return name.startswith(("/", "./", "../", "~")) or name.count("/") > 1 or "\\" in name


def check_path(name: str) -> None:
    """Passes a name that is no path, or that of a folder.

    Raises:
        ModelNotFoundError: It is a path and no folder is there.
    """
    path = Path(name)
    if not is_path(name) or path.is_dir():
        return
    if path.exists():
        raise ModelNotFoundError(
            f"{name} is a file; give the folder that holds the model's config.json and weights"
        )
    raise ModelNotFoundError(
        f"there is no folder {name} (looked up from {Path.cwd()}); give the folder that holds the"
        " model's config.json and weights, or a hub id such as BAAI/bge-reranker-v2-m3"
    )
