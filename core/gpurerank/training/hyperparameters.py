"""What a training run is asked to do."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gpurerank.errors import InputError
from gpurerank.models import devices
from gpurerank.training.negative_mining import Mining

Loss = Literal["listwise", "lambda", "pairwise"]
LOSSES: tuple[Loss, ...] = ("listwise", "lambda", "pairwise")


@dataclass(frozen=True, slots=True)
class Source:
    """Where judged queries come from.

    Attributes:
        path: A folder in BEIR layout, or a ``.jsonl`` or ``.tsv`` file of (query, passage) pairs.
        split: The judgements of a folder: ``qrels/<split>.tsv``.
        queries: Queries taken at most, drawn at random; None for all.
        passages: Passages taken at most: those that answer the queries first; None for all.
    """

    path: Path
    split: str = "train"
    queries: int | None = None
    passages: int | None = None

    @classmethod
    def parse(cls, text: str) -> Source:
        """Reads ``PATH[@SPLIT][:QUERIES[:PASSAGES]]``, such as "data/nq@train:2000".

        Raises:
            InputError: There is nothing at the path.
        """
        found = re.fullmatch(r"(.+?)(?:@([\w-]+))?(?::(\d+))?(?::(\d+))?", text)
        assert found is not None  # every text has a path
        path, split, queries, passages = found.groups()
        source = cls(
            Path(path),
            split or "train",
            int(queries) if queries else None,
            int(passages) if passages else None,
        )
        if not source.path.exists():
            raise InputError(f"{path!r} is no folder and no file; give PATH[@SPLIT][:QUERIES]")
        return source


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """Every option of a training run.

    Attributes:
        sources: Where judged queries come from; at least one.
        output: Folder for the lists, the checkpoints, the model and the report.
        base: "embedded", a folder or a hub id of a cross-encoder.
        new_head: Begin anew from the embedded bi-encoder.
        bi_encoder: Mines negatives; and teaches where no teacher is named.
        teacher: A cross-encoder whose logits are distilled, or None for the bi-encoder.
        blend_weight: Trains on top of the bi-encoder's ranking: logits that a similarity of 1 is
            worth. None keeps what the base was trained with.
        blend_token_share: Share of that similarity that comes from late interaction, in [0, 1].
        blend_center: The similarity that says nothing either way.
        blend_scale: What the blended logit is multiplied with; changes no order. None: so that a
            similarity of 1 is worth 12 logits at most, and good passages do not all score 1.
        loss: "listwise" (cross-entropy of the list with distillation), "lambda" (LambdaLoss), or
            "pairwise" (RankNet).
        teacher_weight: Weight of the distillation in "listwise".
        pointwise_weight: Weight of the term in "listwise" that gives scores an absolute level.
        unlabelled: Lists of short texts of the sources from which only the teacher teaches: they
            keep what the bi-encoder knows.
        mining: How negatives are drawn.
        held_out_share: Share of the queries that are held out to judge by; 0 for none.
        held_out_limit: Queries held out at most.
        epochs: Passes over the lists.
        lists_per_step: Lists of one optimizer step.
        learning_rate: At its peak; a cosine with 5% warm-up.
        max_length: Tokens of a pair in training.
        lora_rank: Trains low-rank adapters in place of all weights; None for all weights.
        patience: Ends after so many judgements without a better one; None never.
        save_steps: Steps between checkpoints; None for a tenth of an epoch.
        device: "auto" or a torch device.
        bfloat16: Whether to multiply in bfloat16; None where the hardware does.
        seed: Decides every draw.
        show_progress: Whether bars are shown.
        trust_remote_code: Whether code from the base's repository may run.
    """

    sources: tuple[Source, ...]
    output: Path
    base: str = "embedded"
    new_head: bool = False
    bi_encoder: str = "embedded"
    teacher: str | None = None
    blend_weight: float | None = None
    blend_token_share: float = 0.0
    blend_center: float = 0.55
    blend_scale: float | None = None
    loss: Loss = "listwise"
    teacher_weight: float = 0.3
    pointwise_weight: float = 0.2
    unlabelled: int = 0
    mining: Mining = field(default_factory=Mining)
    held_out_share: float = 0.1
    held_out_limit: int = 200
    epochs: float = 1.0
    lists_per_step: int = 16
    learning_rate: float = 2e-5
    max_length: int = 256
    lora_rank: int | None = None
    patience: int | None = 3
    save_steps: int | None = None
    device: str = "auto"
    bfloat16: bool | None = None
    seed: int = 20261121
    show_progress: bool = True
    trust_remote_code: bool = False

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.output / "checkpoints"

    @property
    def model_folder(self) -> Path:
        """Folder of the trained model."""
        return self.output / "model"

    def check(self) -> None:
        """Checks what can be checked without data or model.

        Raises:
            InputError: An option is out of range.
        """
        self.mining.check()
        if not self.sources:
            raise InputError("nothing to train on: give a folder in BEIR layout or a file of pairs")
        if self.loss not in LOSSES:
            raise InputError(f"loss is {self.loss!r}; it must be one of {', '.join(LOSSES)}")
        if self.blend_weight is not None and not self.blend_weight > 0:
            raise InputError(f"blend_weight is {self.blend_weight}; it must be over 0")
        if self.blend_scale is not None and not self.blend_scale > 0:
            raise InputError(f"blend_scale is {self.blend_scale}; it must be over 0")
        if not 0 <= self.blend_token_share <= 1:
            raise InputError(f"blend_token_share is {self.blend_token_share}; it must be in [0, 1]")
        if self.blend_token_share and self.blend_weight is None:
            raise InputError("blend_token_share needs blend_weight: there is no blend to share in")
        if not 0 <= self.held_out_share < 1:
            raise InputError(f"held_out_share is {self.held_out_share}; it must be in [0, 1)")
        for name in ("epochs", "lists_per_step", "learning_rate", "max_length"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be over 0")

    def resolved_device(self) -> str:
        """The torch device that "auto" stands for."""
        return str(devices.resolve_device(self.device))

    def in_bfloat16(self) -> bool:
        """Whether training multiplies in bfloat16."""
        if self.bfloat16 is not None:
            return self.bfloat16
        device = devices.resolve_device(self.device)
        return devices.dtype_name(devices.resolve_dtype("auto", device)) == "bfloat16"
