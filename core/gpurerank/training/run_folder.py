"""The output folder of a training run: what a stopped run has finished is not computed again."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from gpurerank.errors import InputError
from gpurerank.training.hyperparameters import TrainOptions
from gpurerank.training.training_data import TrainingData
from gpurerank.training.training_lists import read_lists, write_lists

# Options that change where a run happens or what it prints, but not its result.
_NOT_COMPARED = ("output", "show_progress", "device")


class RunFolder:
    """Reads and writes the files of a run; each file appears complete or not at all.

    Args:
        path: The folder; it is created if it does not exist.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._lists = path / "lists.jsonl"
        self._held_out = path / "held_out.jsonl"

    def claim(self, options: TrainOptions) -> None:
        """Records the options of the run, so that no other run continues from its checkpoints.

        A run that failed before it mined its lists left nothing to mix up, so its options are
        overwritten.

        Raises:
            InputError: The folder holds a run with other options.
        """
        # Compared as text, because JSON has no paths, tuples or classes.
        current = {n: str(v) for n, v in asdict(options).items() if n not in _NOT_COMPARED}
        recorded = self.load("options")
        if recorded is not None and self._lists.is_file():
            # Options that were added after the run began had their default.
            recorded = {f.name: str(f.default) for f in fields(options)} | recorded
            changed = [name for name in current if recorded[name] != current[name]]
            if changed:
                raise InputError(
                    f"{self._path} holds a run with another {', '.join(changed)}; choose another"
                    " output folder, or delete this one"
                )
        self.save("options", current)

    def load_data(self) -> TrainingData | None:
        """Loads the mined lists; None before they are mined."""
        notes = self.load("notes")  # saved last
        if notes is None:
            return None
        return TrainingData(list(read_lists(self._lists)), list(read_lists(self._held_out)), notes)

    def save_data(self, data: TrainingData) -> None:
        """Saves the mined lists."""
        write_lists(self._lists, data.training)
        write_lists(self._held_out, data.held_out)
        self.save("notes", data.notes)

    def load(self, name: str) -> Any:
        """Loads the JSON value that was saved under a name; None if there is none."""
        path = self._path / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def save(self, name: str, value: object) -> None:
        """Saves a JSON value under a name."""
        partial = self._path / f"{name}.partial"
        partial.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        partial.replace(partial.with_suffix(".json"))
