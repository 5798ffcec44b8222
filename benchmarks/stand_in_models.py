"""Models for machines without the hub: sizes of well-known rerankers, seeded random weights.

The time of a model does not depend on the values of its weights. Scores do, so the weights are
drawn wide enough that passages get different scores, and the head is scaled until the logits have
a standard deviation of 1.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from benchmarks.peer_report import PeerModelRecord
from gpurerank.benchmark.model_under_test import locate_model
from gpurerank.benchmark.synthetic_text import REALISTIC, TextGenerator, prose_words
from gpurerank.errors import ModelNotFoundError
from gpurerank.models import embedded
from gpurerank.models.loading import quiet

SEED = 7
# Part of the folder's name: models of an older recipe are not reused.
RECIPE = 1
VOCABULARY_SIZE = 8_000
SAMPLE_PAIRS = 24


@dataclass(frozen=True, slots=True)
class StandIn:
    """The sizes of a well-known model, and its tokenizer where one is installed."""

    prefix: str
    sizes: dict[str, Any]
    load_tokenizer: Callable[[], Any] | None = None


def _load_minilm_tokenizer() -> Any:
    folder = embedded.base_folder()
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


STAND_INS = {
    "tinybert-l2": StandIn(
        "Bert",
        {
            "num_hidden_layers": 2,
            "hidden_size": 128,
            "num_attention_heads": 2,
            "intermediate_size": 512,
            "vocab_size": 30_522,
            "max_position_embeddings": 512,
            "initializer_range": 0.1,
        },
        _load_minilm_tokenizer,
    ),
    "minilm-l6": StandIn(
        "Bert",
        {
            "num_hidden_layers": 6,
            "hidden_size": 384,
            "num_attention_heads": 12,
            "intermediate_size": 1_536,
            "vocab_size": 30_522,
            "max_position_embeddings": 512,
            "initializer_range": 0.05,
        },
        _load_minilm_tokenizer,
    ),
    "bge-m3": StandIn(
        "XLMRoberta",
        {
            "num_hidden_layers": 24,
            "hidden_size": 1_024,
            "num_attention_heads": 16,
            "intermediate_size": 4_096,
            "vocab_size": 250_002,
            "max_position_embeddings": 8_194,
            "type_vocab_size": 1,
            "initializer_range": 0.03,
        },
    ),
}


def prepare_model(name: str, cache: Path, scratch: Path) -> tuple[str, PeerModelRecord]:
    """The folder or hub id of a model, and an empty record of it; builds a stand-in once.

    Args:
        name: A key of ``STAND_INS``, "embedded", a folder or a hub id.
        cache: Folder where stand-ins are kept.
        scratch: Folder for what only this run needs.
    """
    if name not in STAND_INS:
        shown_name, folder = locate_model(name, scratch)
        return folder, PeerModelRecord(shown_name)
    stand_in = STAND_INS[name]
    tokenizer = _load_tokenizer(stand_in)
    kind, shown_kind = ("unigram", "stand-in") if tokenizer is None else ("own", "its own")
    path = cache / f"{name}-{kind}-{RECIPE}"
    if not path.is_dir():
        if tokenizer is None:
            tokenizer = unigram_tokenizer(has_token_types=stand_in.prefix == "Bert")
        _build(stand_in, tokenizer, path)
    return str(path), PeerModelRecord(name, "random", shown_kind)


def unigram_tokenizer(has_token_types: bool = False) -> Any:
    """A tokenizer like that of XLM-RoBERTa, trained on the texts that are scored."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(_training_texts(), trainer)
    suffix = ":1" if has_token_types else ""
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair=f"<s> $A </s> </s> $B{suffix} </s>{suffix}",
        special_tokens=[(token, backend.token_to_id(token)) for token in ("<s>", "</s>")],
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        cls_token="<s>",
        sep_token="</s>",
        model_max_length=512,
        model_input_names=[
            "input_ids",
            *(["token_type_ids"] if has_token_types else []),
            "attention_mask",
        ],
    )


def _load_tokenizer(stand_in: StandIn) -> Any:
    try:
        return stand_in.load_tokenizer() if stand_in.load_tokenizer else None
    except ModelNotFoundError:
        return None


def _training_texts() -> Iterator[str]:
    words = prose_words()
    for start in range(0, len(words), 100):
        yield " ".join(words[start : start + 100])


def _build(stand_in: StandIn, tokenizer: Any, path: Path) -> None:
    config = getattr(transformers, f"{stand_in.prefix}Config")(
        **stand_in.sizes, num_labels=1, pad_token_id=tokenizer.pad_token_id
    )
    torch.manual_seed(SEED)
    model = getattr(transformers, f"{stand_in.prefix}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        _widen_weights(model)
        _scale_head(model, tokenizer)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when it is complete, so that an interrupted run leaves no broken model.
    building = Path(tempfile.mkdtemp(dir=path.parent))
    try:
        with quiet():
            model.save_pretrained(building)
        tokenizer.save_pretrained(building)
        building.rename(path)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _widen_weights(model: Any) -> None:
    """Makes the score depend on the words: weights of one small spread would average them out.

    With these factors bfloat16 moves a score by 2 to 4% of the scores' spread; without, by 5 to
    30%, and ranks would mean nothing.
    """
    for name, parameter in model.named_parameters():
        if "word_embeddings" in name:
            parameter.mul_(10)
        elif name.endswith(("attention.self.value.weight", "attention.output.dense.weight")):
            parameter.mul_(2)


def _scale_head(model: Any, tokenizer: Any) -> None:
    """Scales the last layer so that logits of sample pairs have mean 0 and deviation 1."""
    request = TextGenerator(tokenizer, 128, SEED).request(REALISTIC, SAMPLE_PAIRS)
    inputs = tokenizer(
        [request.query] * SAMPLE_PAIRS,
        request.passages,
        padding=True,
        truncation=True,
        max_length=128,
        return_tensors="pt",
    )
    logits = model(**inputs).logits[:, 0]
    layers = [m for m in model.classifier.modules() if isinstance(m, torch.nn.Linear)]
    last = layers[-1]
    scale = 1 / logits.std()
    shift = (last.bias - logits.mean()) * scale
    last.weight.mul_(scale)
    last.bias.copy_(shift)
