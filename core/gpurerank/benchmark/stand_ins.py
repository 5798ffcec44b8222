"""Models to run where no hub is: the sizes of well-known rerankers, seeded random weights.

Speed does not depend on what the weights say. Scores do, so the weights are drawn wide enough that
passages get different scores, and the head is scaled until these have a spread of one logit.
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

from gpurerank.benchmark.texts import TextMaker, corpus_words
from gpurerank.errors import ModelNotFoundError
from gpurerank.models import embedded
from gpurerank.models.loading import quiet

SEED = 7
# Part of the folder's name: another recipe is another folder.
RECIPE = 1
VOCABULARY = 8_000
SAMPLE = 24


@dataclass(frozen=True, slots=True)
class BenchModel:
    """A model to measure: where it lies and what is true about it."""

    name: str
    folder: str
    weights: str = "real"
    tokenizer: str = "its own"


@dataclass(frozen=True, slots=True)
class StandIn:
    """The sizes of a model that is stood in for."""

    prefix: str
    sizes: dict[str, Any]
    own_tokenizer: Callable[[], Any] | None = None


def _minilm_tokenizer() -> Any:
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
        _minilm_tokenizer,
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
        _minilm_tokenizer,
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


def prepare(name: str, cache: Path) -> BenchModel:
    """The model of that name, made where it is a stand-in that is not in the cache yet."""
    if name == embedded.NAME:
        return BenchModel(
            name, str(_made(cache, f"embedded-{embedded.delta_sha256()[:16]}", _save))
        )
    if name not in STAND_INS:
        # A folder's place is nobody's business in a report that is kept.
        return BenchModel(Path(name).name if Path(name).is_dir() else name, name)
    stand_in = STAND_INS[name]
    tokenizer = _own_tokenizer(stand_in)
    stood_in = "stand-in" if tokenizer is None else "its own"
    folder = _made(
        cache,
        f"{name}-{'unigram' if tokenizer is None else 'own'}-{RECIPE}",
        lambda building: _build(
            stand_in, tokenizer or unigram_tokenizer(stand_in.prefix == "Bert"), building
        ),
    )
    return BenchModel(name, str(folder), "random", stood_in)


def unigram_tokenizer(token_types: bool = False) -> Any:
    """A tokenizer of XLM-RoBERTa's kind, trained on the texts that are scored."""
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(_training_texts(), trainer)
    kind = ":1" if token_types else ""
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair=f"<s> $A </s> </s> $B{kind} </s>{kind}",
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
            *(["token_type_ids"] if token_types else []),
            "attention_mask",
        ],
    )


def _made(cache: Path, name: str, make: Callable[[Path], None]) -> Path:
    folder = cache / name
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        # Renamed when it is whole, so that an interrupted run leaves no half model.
        building = Path(tempfile.mkdtemp(dir=cache))
        try:
            make(building)
            building.rename(folder)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return folder


def _save(folder: Path) -> None:
    with quiet():
        embedded.load_cross_encoder("cpu", torch.float32).save_pretrained(str(folder))


def _own_tokenizer(stand_in: StandIn) -> Any:
    try:
        return stand_in.own_tokenizer() if stand_in.own_tokenizer else None
    except ModelNotFoundError:
        return None


def _training_texts() -> Iterator[str]:
    words = corpus_words()
    for start in range(0, len(words), 100):
        yield " ".join(words[start : start + 100])


def _build(stand_in: StandIn, tokenizer: Any, folder: Path) -> None:
    config = getattr(transformers, f"{stand_in.prefix}Config")(
        **stand_in.sizes, num_labels=1, pad_token_id=tokenizer.pad_token_id
    )
    torch.manual_seed(SEED)
    model = getattr(transformers, f"{stand_in.prefix}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        _strengthen(model)
        _spread(model, tokenizer)
    with quiet():
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _strengthen(model: Any) -> None:
    """Lets the words decide the score: evenly drawn weights would average them out.

    With these factors bfloat16 moves a score by 2 to 4 % of the scores' spread; without, by 5 to
    30 %, and ranks would say nothing.
    """
    for name, parameter in model.named_parameters():
        if "word_embeddings" in name:
            parameter.mul_(10)
        elif name.endswith(("attention.self.value.weight", "attention.output.dense.weight")):
            parameter.mul_(2)


def _spread(model: Any, tokenizer: Any) -> None:
    """Scales the last layer so that logits of sample pairs have mean 0 and deviation 1."""
    request = TextMaker(tokenizer, 128, SEED).request("realistic", SAMPLE)
    texts = tokenizer(
        [request.query] * SAMPLE,
        request.passages,
        padding=True,
        truncation=True,
        max_length=128,
        return_tensors="pt",
    )
    logits = model(**texts).logits[:, 0]
    last = [each for each in model.classifier.modules() if isinstance(each, torch.nn.Linear)][-1]
    scale = 1 / logits.std()
    shift = (last.bias - logits.mean()) * scale
    last.weight.mul_(scale)
    last.bias.copy_(shift)
