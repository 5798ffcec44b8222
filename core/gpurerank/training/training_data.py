"""From training sources to the lists of a run: sampled, split and mined."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from gpurerank.collection import Collection
from gpurerank.errors import DataError
from gpurerank.training.hyperparameters import MiningOptions, TrainOptions
from gpurerank.training.negative_mining import NegativeMiner, unlabelled_lists
from gpurerank.training.training_lists import TrainingList
from gpurerank.training.training_sources import read_source, sample_collection
from gpurerank.types import TextEmbedder

UNLABELLED_SIZE = 8
# Enough variety for thousands of lists; more would only cost embedding time.
_SHORT_TEXTS_PER_SOURCE = 9_000
_LONGEST_SENTENCE = 240
_SHORTEST_TEXT = 13


@dataclass(frozen=True, slots=True)
class TrainingData:
    """The lists of a run.

    Attributes:
        training: Lists to train on, shuffled.
        held_out: Lists to evaluate on.
        notes: One line per source, and one per kind of fault in its files.
    """

    training: list[TrainingList]
    held_out: list[TrainingList]
    notes: list[str]


def mine_training_data(options: TrainOptions, embedder: TextEmbedder) -> TrainingData:
    """Mines the lists of all sources; the same seed gives the same lists.

    Raises:
        DataError: A source cannot be read, or no query has both a positive and a negative.
    """
    rng = np.random.default_rng(options.seed)
    data = TrainingData([], [], [])
    short_texts: list[str] = []
    for source in options.sources:
        collection = read_source(source)
        data.notes.extend(f"{collection.name}: {fault}" for fault in collection.faults)
        collection = sample_collection(collection, source, rng)
        _mine_collection(data, collection, options, embedder, rng)
        short_texts += _short_texts(collection, rng)
    if not data.training:
        raise DataError(
            "no query has both a relevant passage and a negative: " + "; ".join(data.notes)
        )
    training = [*data.training, *_unlabelled(short_texts, options, embedder, rng)]
    shuffled = [training[row] for row in rng.permutation(len(training))]
    return replace(data, training=shuffled)


def _mine_collection(
    data: TrainingData,
    collection: Collection,
    options: TrainOptions,
    embedder: TextEmbedder,
    rng: np.random.Generator,
) -> None:
    """Adds the lists of one collection."""
    query_ids = [str(i) for i in rng.permutation(sorted(collection.judgements))]
    # The limit holds for the whole run, so the sources share it equally.
    held_out = min(
        round(len(query_ids) * options.held_out_share),
        options.held_out_limit // len(options.sources),
    )
    miner = NegativeMiner(collection, embedder, options.mining, rng)
    evaluation_miner = miner.with_options(_evaluation_options(options.mining))
    data.held_out.extend(evaluation_miner.mine(query_ids[:held_out]))
    mined = list(miner.mine(query_ids[held_out:]))
    data.training.extend(mined)
    data.notes.append(
        f"{collection.name}: {len(mined):,} lists of {len(query_ids) - held_out:,} queries over"
        f" {len(collection.documents):,} passages; {held_out:,} queries held out"
    )


def _evaluation_options(mining: MiningOptions) -> MiningOptions:
    """Held-out lists rerank the first stages' best passages, as serving does."""
    return replace(
        mining,
        positives=3,
        hard=7,
        hard_depth=7,
        lexical=3,
        medium=0,
        random=0,
        untitled_share=0.0,
        easy_share=1.0,
    )


def _short_texts(collection: Collection, rng: np.random.Generator) -> list[str]:
    """A random choice of queries, titles and first sentences."""
    documents = list(collection.documents.values())
    queries = [collection.queries[i].text for i in collection.judgements]
    titles = [document.title for document in documents if document.title]
    sentences = [document.text.split(". ")[0][:_LONGEST_SENTENCE] for document in documents]
    texts = [t.strip() for t in queries + titles + sentences if len(t) >= _SHORTEST_TEXT]
    return [texts[row] for row in rng.permutation(len(texts))[:_SHORT_TEXTS_PER_SOURCE]]


def _unlabelled(
    short_texts: list[str],
    options: TrainOptions,
    embedder: TextEmbedder,
    rng: np.random.Generator,
) -> Iterator[TrainingList]:
    if not options.unlabelled:
        return iter(())
    texts = list(dict.fromkeys(short_texts))
    queries = [texts[row] for row in rng.permutation(len(texts))[: options.unlabelled]]
    scale = options.mining.teacher_scale
    return unlabelled_lists(queries, texts, embedder, UNLABELLED_SIZE, scale, rng)
