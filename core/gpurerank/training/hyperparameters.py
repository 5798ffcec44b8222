"""Hyperparameters of a training run: data, negatives, loss and optimizer. Imports no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gpurerank.errors import InputError

Loss = Literal["listwise", "lambda", "pairwise"]
LOSSES: tuple[Loss, ...] = ("listwise", "lambda", "pairwise")

# Tokens: two texts of one token each, and the special tokens around them.
_SHORTEST_PAIR = 8
_SOURCE = re.compile(r"(.+?)(?:@([\w-]+))?(?::(\d+))?(?::(\d+))?")


@dataclass(frozen=True, slots=True)
class TrainingSource:
    """One folder or file with training data.

    Attributes:
        path: A folder in BEIR layout, or a ``.jsonl`` or ``.tsv`` file of (query, passage) pairs.
        split: Split of a folder; its judgments are read from ``qrels/<split>.tsv``.
        queries: Maximum number of queries, drawn at random; None for all.
        passages: Maximum number of passages. Passages judged for a query are kept first, the rest
            is drawn at random; None for all.
    """

    path: Path
    split: str = "train"
    queries: int | None = None
    passages: int | None = None

    @classmethod
    def parse(cls, text: str) -> TrainingSource:
        """Parses ``PATH[@SPLIT][:QUERIES[:PASSAGES]]``, such as "data/nq@train:2000".

        Raises:
            InputError: The path does not exist, or a number is 0.
        """
        match = _SOURCE.fullmatch(text)
        path, split, *limits = match.groups() if match else (text, None, None, None)
        if not Path(path).exists():
            raise InputError(
                f"training data {text!r}: there is no file or folder {path!r}; give"
                " PATH[@SPLIT][:QUERIES[:PASSAGES]]"
            )
        queries, passages = (None if limit is None else int(limit) for limit in limits)
        if 0 in (queries, passages):
            raise InputError(f"training data {text!r}: a number of 0 leaves nothing; leave it out")
        return cls(Path(path), split or "train", queries, passages)


@dataclass(frozen=True, slots=True, kw_only=True)
class MiningOptions:
    """Number and origin of the negatives that are mined for each query.

    Hard negatives alone teach a model to contradict the first stage, so easier ones are mixed in.
    All ranks start at 1.

    Attributes:
        positives: Maximum number of relevant passages per list.
        hard: Negatives from the bi-encoder's top ``hard_depth``.
        hard_depth: Lowest bi-encoder rank of a hard negative.
        lexical: Negatives from the top 20 by BM25.
        medium: Negatives from the bi-encoder's ranks ``hard_depth`` + 1 to ``medium_depth``.
        medium_depth: Lowest bi-encoder rank of a medium-hard negative.
        random: Negatives drawn from all passages.
        too_similar: Share of the positive's cosine, in [0, 1], above which a passage counts as a
            relevant one that nobody judged, and is no negative. Ignored for queries with known
            answer strings: their negatives contain none of these. None trusts the judgments to be
            complete.
        untitled_share: Share of the lists whose passages are used without their titles, in [0, 1].
        easy_share: Share, in [0, 1], that is kept of the queries whose positive leads the best
            negative by more than ``easy_margin``: such queries teach little.
        easy_margin: Difference of two cosines.
        positive_depth: Queries for which the bi-encoder ranks more than this many passages above
            the positive are dropped: most make no sense away from the page they were written for.
            None keeps all.
        teacher_scale: Factor from the bi-encoder's cosine to its logit as a teacher.
    """

    positives: int = 1
    hard: int = 3
    hard_depth: int = 20
    lexical: int = 1
    medium: int = 2
    medium_depth: int = 200
    random: int = 1
    too_similar: float | None = 0.95
    untitled_share: float = 0.3
    easy_share: float = 1.0
    easy_margin: float = 0.15
    positive_depth: int | None = None
    teacher_scale: float = 15.0

    def check(self) -> None:
        """Checks the ranges.

        Raises:
            InputError: A list would have no positive or no negative, or a value is out of range.
        """
        for name in ("hard", "lexical", "medium", "random"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        negatives = self.hard + self.lexical + self.medium + self.random
        if self.positives < 1 or negatives < 1:
            raise InputError(
                f"{self.positives} positives and {negatives} negatives per query cannot be ranked;"
                " ask for at least 1 of each"
            )
        for name in ("untitled_share", "easy_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be in [0, 1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions:
    """All options of a training run.

    Attributes:
        sources: Training data; at least one source.
        output: Folder for the lists, the checkpoints, the model and the report.
        base: Cross-encoder to start from: "embedded", a folder or a hub id.
        new_head: Start from the embedded bi-encoder with an untrained head.
        bi_encoder: Bi-encoder that mines negatives, and is the teacher where none is named.
        teacher: Cross-encoder whose logits are distilled; None for the bi-encoder.
        blend_weight: Train on top of the bi-encoder: logits per unit of similarity. None keeps the
            blend that the base was trained with, if any.
        blend_token_share: Share of late interaction in that similarity, in [0, 1].
        blend_center: Similarity that adds nothing to the logit.
        blend_scale: Factor of the blended logit; it changes no order. None limits a similarity of
            1 to 12 logits, so that the scores of good passages stay apart.
        loss: "listwise" (cross-entropy with distillation), "lambda" (LambdaLoss) or "pairwise"
            (RankNet).
        teacher_weight: Weight of the distillation term in "listwise".
        pointwise_weight: Weight of the term in "listwise" that fixes the level of the scores.
        unlabelled: Number of lists of short texts without labels. Only the teacher trains on them,
            which keeps what the bi-encoder knows.
        mining: Number and origin of the negatives.
        held_out_share: Share of the queries that are held out for evaluation, in [0, 1); 0 for
            none.
        held_out_limit: Maximum number of held-out queries.
        epochs: Passes over the training lists.
        lists_per_step: Lists per optimizer step.
        learning_rate: Peak learning rate; 5% linear warm-up, then cosine decay to 0.
        max_length: Maximum tokens per pair in training.
        lora_rank: Rank of LoRA adapters (arXiv:2106.09685); None trains all weights.
        patience: Evaluations without improvement before training stops early; 0 never stops early.
        save_steps: Steps between checkpoints; None for a tenth of an epoch.
        device: "auto" or a torch device.
        bfloat16: Whether to multiply in bfloat16; None where the hardware does.
        seed: Seed of all random choices.
        show_progress: Whether progress bars are shown.
        trust_remote_code: Whether code from the base's repository may run.

    Example:
        >>> from pathlib import Path
        >>> sources = (TrainingSource(Path("pairs.tsv")),)
        >>> options = TrainOptions(sources=sources, output=Path("tuned"), epochs=2.0)
        >>> options.model_folder.as_posix()
        'tuned/model'
    """

    sources: tuple[TrainingSource, ...]
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
    mining: MiningOptions = field(default_factory=MiningOptions)
    held_out_share: float = 0.1
    held_out_limit: int = 200
    epochs: float = 1.0
    lists_per_step: int = 16
    learning_rate: float = 2e-5
    max_length: int = 256
    lora_rank: int | None = None
    patience: int = 3
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
        """Checks everything that needs neither data nor model.

        Raises:
            InputError: An option is out of range, or two options exclude each other.
        """
        self.mining.check()
        if not self.sources:
            raise InputError("no training data: give a folder in BEIR layout or a file of pairs")
        if self.loss not in LOSSES:
            raise InputError(f"loss is {self.loss!r}; it must be one of {', '.join(LOSSES)}")
        self._check_ranges()
        if self.blend_token_share and self.blend_weight is None:
            raise InputError("blend_token_share needs blend_weight; set both or neither")
        if self.new_head and self.base != "embedded":
            raise InputError(f"new_head needs the base 'embedded'; the base is {self.base!r}")

    def _check_ranges(self) -> None:
        if self.max_length < _SHORTEST_PAIR:
            raise InputError(
                f"max_length is {self.max_length}; it must be {_SHORTEST_PAIR} or more"
            )
        positive = ("epochs", "lists_per_step", "learning_rate", "save_steps")
        for name in (*positive, "lora_rank", "blend_weight", "blend_scale"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} is {value}; it must be over 0")
        for name in ("unlabelled", "held_out_limit", "patience", "teacher_weight"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is {getattr(self, name)}; it must be 0 or more")
        if not 0 <= self.blend_token_share <= 1:
            raise InputError(f"blend_token_share is {self.blend_token_share}; it must be in [0, 1]")
        if not 0 <= self.held_out_share < 1:
            raise InputError(f"held_out_share is {self.held_out_share}; it must be in [0, 1)")
