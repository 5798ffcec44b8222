"""The recipe of the embedded cross-encoder.

``python -m gpurerank.training.embedded --data FOLDER --output FOLDER`` mines the training lists,
trains, and writes the delta of the weights; with ``--ship`` into the package. Run again it goes on
from its last checkpoint.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from gpurerank.collection import Collection
from gpurerank.models.embedded import DELTA_FILE, base_folder, parameters_of, write_delta
from gpurerank.training.lists import (
    Negatives,
    TrainingList,
    labelled_lists,
    read_lists,
    unlabelled_lists,
    write_lists,
)
from gpurerank.training.loss import ListwiseDistillationLoss

SEED = 20261121
MAX_LENGTH = 256
LISTS_PER_STEP = 16
PASSAGES_PER_UNLABELLED_LIST = 8

MIX = Negatives(hard=2, lexical=1, middling=1, random=1)
# Most SQuAD questions were written looking at the passage; those that make no sense without it are
# left out by how deep the bi-encoder ranks their passage.
PLACEABLE = replace(MIX, positive_depth=20)


@dataclass(frozen=True, slots=True)
class Source:
    """What a collection gives to a round.

    Attributes:
        folder: Name of its folder.
        split: Whose judgements are used.
        documents: Documents used at most; the pool that negatives come from.
        labelled: Queries with a labelled list.
        unlabelled: Queries with a list that the bi-encoder alone orders.
        negatives: Of the labelled lists.
    """

    folder: str
    split: str
    documents: int
    labelled: int
    unlabelled: int = 0
    negatives: Negatives = MIX


@dataclass(frozen=True, slots=True)
class Round:
    """One pass over lists that are mined for it; a later round goes on from the earlier one."""

    name: str
    sources: tuple[Source, ...]
    short_lists: int
    learning_rate: float
    seed: int


ROUNDS = (
    Round(
        "first",
        (
            Source("nq-qed-train", "train", 6_854, 7_167),
            Source("boolq-pairs-dev", "test", 1_262, 1_491),
            Source("squad-v1.1-train", "train", 6_000, 2_500, negatives=PLACEABLE),
            Source("scifact", "train", 5_183, 809),
            Source("medquad", "train", 4_000, 800),
        ),
        short_lists=14_000,
        learning_rate=1e-4,
        seed=SEED,
    ),
    Round(
        "second",
        (
            Source("nq-qed-train", "train", 6_854, 2_000),
            Source("squad-v1.1-train", "train", 2_500, 0, unlabelled=800),
            Source("scifact", "train", 2_500, 300, unlabelled=400),
            Source("medquad", "train", 1_500, 0, unlabelled=400),
        ),
        short_lists=2_500,
        learning_rate=5e-5,
        seed=SEED + 1,
    ),
)


def mine(data: Path, encoder: SentenceTransformer, this: Round) -> list[TrainingList]:
    """Every list of a round, shuffled: labelled ones, unlabelled ones, and short ones."""
    rng = np.random.default_rng(this.seed)
    lists: list[TrainingList] = []
    short: list[str] = []
    for source in this.sources:
        collection = subset(Collection.read(data / source.folder, source.split), source, rng)
        asked = [str(i) for i in rng.permutation(sorted(collection.judgements))]
        labelled = asked[: source.labelled]
        lists += labelled_lists(collection, encoder, labelled, source.negatives, rng)
        if source.unlabelled:
            queries = [collection.queries[i].text for i in asked[-source.unlabelled :]]
            passages = [document.passage for document in collection.documents.values()]
            lists += unlabelled_lists(queries, passages, encoder, PASSAGES_PER_UNLABELLED_LIST, rng)
        short += short_texts(collection, rng)
    short = list(dict.fromkeys(short))
    asked = [short[int(row)] for row in rng.permutation(len(short))[: this.short_lists]]
    lists += unlabelled_lists(asked, short, encoder, PASSAGES_PER_UNLABELLED_LIST, rng)
    return [lists[int(i)] for i in rng.permutation(len(lists))]


def subset(collection: Collection, source: Source, rng: np.random.Generator) -> Collection:
    """The collection with at most ``source.documents`` documents and the queries they answer."""
    ids = list(collection.documents)
    kept = {ids[int(i)] for i in rng.permutation(len(ids))[: source.documents]}
    judgements = {
        query_id: judged
        for query_id, judged in collection.judgements.items()
        if all(document_id in kept for document_id in judged) and collection.relevant(query_id)
    }
    documents = {i: document for i, document in collection.documents.items() if i in kept}
    return Collection(collection.name, documents, collection.queries, judgements)


def short_texts(collection: Collection, rng: np.random.Generator, limit: int = 9_000) -> list[str]:
    """Queries, titles and first sentences: what short-passage search is made of."""
    queries = [collection.queries[i].text for i in collection.judgements]
    documents = list(collection.documents.values())
    titles = [document.title for document in documents if document.title]
    sentences = [document.text.split(". ")[0][:240] for document in documents]
    texts = [text.strip() for text in queries + titles + sentences if len(text) > 12]
    return [texts[int(i)] for i in rng.permutation(len(texts))[:limit]]


def as_dataset(lists: Iterable[TrainingList]) -> Dataset:
    """Columns ``query``, ``passages`` and ``labels``: a (similarity, grade) for each passage."""

    def rows() -> Iterator[dict[str, object]]:
        for each in lists:
            grades = [float(row == each.positive) for row in range(len(each.passages))]
            labels = [list(label) for label in zip(each.similarities, grades, strict=True)]
            yield {"query": each.query, "passages": list(each.passages), "labels": labels}

    return Dataset.from_list(list(rows()))


def untrained(folder: Path) -> CrossEncoder:
    """The bi-encoder's weights with a new one-logit head; word embeddings are frozen."""
    torch.manual_seed(SEED)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(base_folder() / name, folder / name)
    model: CrossEncoder = CrossEncoder(
        str(folder),
        num_labels=1,
        max_length=MAX_LENGTH,
        local_files_only=True,
        # The fast attention path serves only without dropout.
        config_kwargs={"attention_probs_dropout_prob": 0.0, "hidden_dropout_prob": 0.0},
    )
    for name, parameter in parameters_of(model).items():
        parameter.requires_grad_(".embeddings." not in name)
    return model


def train(
    model: CrossEncoder, lists: list[TrainingList], output: Path, this: Round
) -> CrossEncoder:
    """Trains on every list once; goes on from the last checkpoint in ``output``."""
    on_gpu = torch.cuda.is_available()
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(output / "checkpoints"),
        num_train_epochs=1,
        per_device_train_batch_size=LISTS_PER_STEP,
        learning_rate=this.learning_rate,
        warmup_steps=0.05,
        lr_scheduler_type="cosine",
        weight_decay=0.01,
        bf16=True,
        use_cpu=not on_gpu,
        save_steps=200,
        save_total_limit=2,
        logging_steps=20,
        seed=this.seed,
        report_to="none",
    )
    trainer = CrossEncoderTrainer(
        model=model,
        args=arguments,
        train_dataset=as_dataset(lists),
        loss=ListwiseDistillationLoss(model),
    )
    checkpoints = output / "checkpoints"
    last = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    return model


def main() -> None:
    """Runs the recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of BEIR collections")
    parser.add_argument("--output", type=Path, required=True, help="lists, checkpoints, result")
    parser.add_argument("--ship", action="store_true", help="write the delta into the package")
    options = parser.parse_args()
    output: Path = options.output
    model = untrained(output / "untrained")
    for this in ROUNDS:
        folder = output / this.name
        folder.mkdir(parents=True, exist_ok=True)
        mined = folder / "lists.jsonl"
        if not mined.exists():
            encoder = SentenceTransformer(str(base_folder()), local_files_only=True)
            with torch.autocast("cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16):
                write_lists(mined, mine(options.data, encoder, this))
        train(model, list(read_lists(mined)), folder, this)
    model.save_pretrained(str(output / "trained"))
    write_delta(model, DELTA_FILE if options.ship else output / DELTA_FILE.name)


if __name__ == "__main__":
    main()
