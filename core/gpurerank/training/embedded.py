"""The recipe of the embedded cross-encoder.

``python -m gpurerank.training.embedded --data FOLDER --output FOLDER`` mines the training lists,
trains, and writes the delta of the weights; with ``--ship`` into the package. Run again it goes on
from its last checkpoint.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
LEARNING_RATE = 1e-4
SHORT_LISTS = 14_000
SHORT_LIST_SIZE = 8


@dataclass(frozen=True, slots=True)
class Source:
    """How many queries a collection gives, out of at most how many documents."""

    folder: str
    split: str
    queries: int
    documents: int
    negatives: Negatives


MIX = Negatives(hard=2, lexical=1, middling=1, random=1)
SOURCES = (
    Source("nq-qed-train", "train", 7_167, 6_854, MIX),
    Source("boolq-pairs-dev", "test", 1_491, 1_262, MIX),
    # Most SQuAD questions were written looking at the passage; those that make no sense without
    # it are left out by how deep the bi-encoder ranks their passage.
    Source(
        "squad-v1.1-train",
        "train",
        2_500,
        6_000,
        Negatives(hard=2, lexical=1, middling=1, random=1, positive_depth=20),
    ),
    Source("scifact", "train", 809, 5_183, MIX),
    Source("medquad", "train", 800, 4_000, MIX),
)


def mine(data: Path, encoder: SentenceTransformer, rng: np.random.Generator) -> list[TrainingList]:
    """Every training list, shuffled: labelled ones of each source and short unlabelled ones."""
    lists: list[TrainingList] = []
    short: list[str] = []
    for source in SOURCES:
        collection = subset(Collection.read(data / source.folder, source.split), source, rng)
        judged = sorted(collection.judgements)
        query_ids = [str(i) for i in rng.permutation(judged)[: source.queries]]
        lists += labelled_lists(collection, encoder, query_ids, source.negatives, rng)
        short += short_texts(collection, rng)
    short = list(dict.fromkeys(short))
    asked = [short[int(row)] for row in rng.permutation(len(short))[:SHORT_LISTS]]
    lists += unlabelled_lists(asked, short, encoder, SHORT_LIST_SIZE, rng)
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


def train(lists: list[TrainingList], output: Path) -> CrossEncoder:
    """Trains on every list once; goes on from the last checkpoint in ``output``."""
    model = untrained(output / "untrained")
    on_gpu = torch.cuda.is_available()
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(output / "checkpoints"),
        num_train_epochs=1,
        per_device_train_batch_size=LISTS_PER_STEP,
        learning_rate=LEARNING_RATE,
        warmup_steps=0.05,
        lr_scheduler_type="cosine",
        weight_decay=0.01,
        bf16=True,
        use_cpu=not on_gpu,
        save_steps=200,
        save_total_limit=2,
        logging_steps=20,
        seed=SEED,
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
    output.mkdir(parents=True, exist_ok=True)
    mined = output / "lists.jsonl"
    if not mined.exists():
        encoder = SentenceTransformer(str(base_folder()), local_files_only=True)
        with torch.autocast("cuda" if torch.cuda.is_available() else "cpu", torch.bfloat16):
            lists = mine(options.data, encoder, np.random.default_rng(SEED))
        write_lists(mined, lists)
    model = train(list(read_lists(mined)), output)
    model.save_pretrained(str(output / "trained"))
    write_delta(model, DELTA_FILE if options.ship else output / DELTA_FILE.name)


if __name__ == "__main__":
    main()
