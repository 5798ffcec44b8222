"""Tiny seeded models of every family, built offline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from gpurerank import Reranker

CORPUS = [
    "What is the capital of France, and how many people live there?",
    "Paris is the capital and largest city of France, on the river Seine.",
    "subprocess.run executes a command, waits, and returns its output.",
    "Compare two files line by line with difflib; merge sorted inputs with heapq.",
    "Größe, naïve café — 12.5 % of £3, 高さ мир; see the notes below!",
    "the quick brown fox jumps over the lazy dog again and again and again",
] * 4

PAIRS = [
    ("what is the capital of france?", "Paris is the capital of France."),
    ("run a command", "subprocess.run executes a command, waits, and returns its output. " * 3),
    ("sorted", "merge sorted inputs with heapq"),
    ("größe 高さ", "Größe, naïve café — 12.5 % of £3, 高さ мир; see the notes below!"),
    ("what is the capital of france?", "fox"),
    ("a", "the quick brown fox jumps over the lazy dog " * 6),
]

PASSAGES = [
    "subprocess.run executes a command and returns its output",
    "heapq.merge merges sorted inputs",
    "difflib compares two files",
    "the quick brown fox",
]

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}<|s|>{{ message['content'] }}"
    "{% elif message['role'] == 'query' %}<|q|>{{ message['content'] }}"
    "{% elif message['role'] == 'document' %}<|d|>{{ message['content'] }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|a|>{% endif %}"
)


def wordpiece_tokenizer() -> PreTrainedTokenizerFast:
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = Counter(
        word
        for line in CORPUS
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(line))
    )
    # Not trained: the trainer breaks ties by hashes that differ from run to run.
    letters = sorted(set("".join(words)))
    usual = sorted(words, key=lambda word: (-words[word], word))[: len(words) // 2]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = dict.fromkeys([*special, *letters, *(f"##{each}" for each in letters), *usual])
    vocab = {piece: place for place, piece in enumerate(pieces)}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizer
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(t, backend.token_to_id(t)) for t in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def bytelevel_tokenizer(*, joined: bool = True) -> PreTrainedTokenizerFast:
    special = ["<s>", "<pad>", "</s>", "<unk>", "<|s|>", "<|q|>", "<|d|>", "<|a|>", "yes", "no"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.decoder = decoders.ByteLevel()
    if joined:
        ends = (("</s>", backend.token_to_id("</s>")), ("<s>", backend.token_to_id("<s>")))
        backend.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        cls_token="<s>",
        sep_token="</s>",
        model_input_names=["input_ids", "attention_mask"],
    )


def unigram_tokenizer() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.decoder = decoders.Metaspace()
    ids = [(t, backend.token_to_id(t)) for t in ("<s>", "</s>")]
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=ids
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        cls_token="<s>",
        sep_token="</s>",
        model_input_names=["input_ids", "attention_mask"],
    )


SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    # Wide enough that scores differ; the default of 0.02 makes them all alike.
    "initializer_range": 0.2,
}

# family: (class prefix, tokenizer, options of its configuration)
FAMILIES: dict[str, tuple[str, Callable[[], PreTrainedTokenizerFast], dict[str, object]]] = {
    "bert": ("Bert", wordpiece_tokenizer, {"max_position_embeddings": 512}),
    "electra": ("Electra", wordpiece_tokenizer, {"embedding_size": 32}),
    "roberta": ("Roberta", bytelevel_tokenizer, {"max_position_embeddings": 514}),
    "xlm_roberta": ("XLMRoberta", unigram_tokenizer, {"max_position_embeddings": 514}),
    "camembert": ("Camembert", unigram_tokenizer, {"max_position_embeddings": 514}),
    "modernbert_cls": ("ModernBert", bytelevel_tokenizer, {"classifier_pooling": "cls"}),
    "modernbert_mean": ("ModernBert", bytelevel_tokenizer, {"classifier_pooling": "mean"}),
    "distilbert": ("DistilBert", wordpiece_tokenizer, {}),
    "albert": ("Albert", wordpiece_tokenizer, {"embedding_size": 16}),
    "deberta_v2": ("DebertaV2", wordpiece_tokenizer, {"type_vocab_size": 0}),
}


def build_classifier(folder: Path, family: str, labels: int = 1, seed: int = 7) -> Path:
    """Writes a seeded random cross-encoder of a family; returns its folder."""
    prefix, tokenizer_of, options = FAMILIES[family]
    tokenizer = tokenizer_of()
    if prefix == "ModernBert":
        options = {
            **options,
            "global_attn_every_n_layers": 2,
            "local_attention": 16,
            "initializer_cutoff_factor": 2.0,
        }
    config = getattr(transformers, f"{prefix}Config")(
        **{**SIZES, **options},
        vocab_size=len(tokenizer),
        num_labels=labels,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        cls_token_id=tokenizer.cls_token_id,
        sep_token_id=tokenizer.sep_token_id,
    )
    torch.manual_seed(seed)
    model = getattr(transformers, f"{prefix}ForSequenceClassification")(config).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_causal(
    folder: Path, *, chat: bool = False, bidirectional: bool = False, seed: int = 11
) -> Path:
    """Writes a seeded random Qwen3, or Gemma 3, that answers yes or no; returns its folder."""
    tokenizer = bytelevel_tokenizer(joined=False)
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    options: dict[str, Any] = {
        **SIZES,
        "vocab_size": len(tokenizer),
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 512,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    torch.manual_seed(seed)
    model: Any
    if bidirectional:
        options |= {"use_bidirectional_attention": True, "pad_token_id": tokenizer.eos_token_id}
        model = transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**options))
    else:
        model = transformers.Qwen3ForCausalLM(
            transformers.Qwen3Config(**options, pad_token_id=None)
        )
    model.eval().save_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token if bidirectional else None
    tokenizer.save_pretrained(folder)
    return folder


def tiny_reranker(tiny: str, **options: object) -> Reranker:
    return Reranker(tiny, device="cpu", dtype="float32", **options)  # type: ignore[arg-type]
