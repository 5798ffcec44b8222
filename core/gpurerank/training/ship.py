"""Makes a trained model the one that ships with the package.

``python -m gpurerank.training.ship RUN`` takes what ``gpurerank train`` left in the folder RUN.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sentence_transformers import CrossEncoder

from gpurerank.errors import InputError
from gpurerank.models.blend import FILE_NAME, read_blend
from gpurerank.models.embedded import DELTA_FILE, write_delta


def ship(model_folder: Path, delta_file: Path) -> str:
    """Writes the delta of a model tuned from "embedded", its checksum, and how it is blended.

    Returns:
        The SHA-256 of the delta.

    Raises:
        InputError: There is no trained model, or it was not trained on top of the bi-encoder.
    """
    if not (model_folder / FILE_NAME).is_file():
        raise InputError(f"{model_folder} holds no model that was trained with --blend-weight")
    blend = read_blend(model_folder / FILE_NAME)
    model: CrossEncoder = CrossEncoder(str(model_folder), device="cpu", local_files_only=True)
    digest = write_delta(model, delta_file)
    blend.write(delta_file.parent)
    return digest


def main() -> None:
    """Ships it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="output folder of gpurerank train")
    ship(parser.parse_args().run / "model", DELTA_FILE)


if __name__ == "__main__":
    main()
