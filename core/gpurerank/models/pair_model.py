"""A loaded cross-encoder: pairs to token ids, token ids to logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.cross_encoder.modules.logit_score import LogitScore
from torch import Tensor

from gpurerank.errors import ModelError
from gpurerank.models import devices
from gpurerank.models.attention import attending
from gpurerank.models.loading import ModelSpec, fingerprint, load_cross_encoder
from gpurerank.models.memory import in_halves
from gpurerank.models.packing import PackedRow, Tokens, pack, pad
from gpurerank.models.pooling import HeadAdapter, last_tokens
from gpurerank.models.probe import position_offset, probe_packed
from gpurerank.models.tokenization import (
    PairTemplate,
    PairTokenizer,
    PreprocessTokenizer,
    TemplateTokenizer,
    TextTokenizer,
    backend_of,
)
from gpurerank.types import FloatArray, IntArray

# The name under which transformers' tokenizers warn, once, of a text over the model's length.
_TOO_LONG_WARNING = "sequence-length-is-longer-than-the-specified-maximum"

# Lengths from a word to over a run of the sliding windows in use; texts of several scripts.
PROBE_PAIRS = (
    ("what is a probe", "a short passage"),
    ("one", "two"),
    ("how do I compare two files?", "difflib compares sequences of lines. " * 12),
    ("where is it", "Größe 高さ мир — naïve, 12.5 % of £3; see the notes below. " * 4),
    ("what is a probe", "a short passage"),
)


class PairModel:
    """One cross-encoder on one device. Not safe between threads: its owner thread uses it.

    Attributes:
        name: As the spec gave it.
        fingerprint: Changes when the weights behind the name do.
        max_length: Tokens that a sequence may have, special tokens included.
        room: Tokens that query and passage may have together.
        packed: Whether batches run as one packed row; else padded.
        why_padded: Why not, or None.
    """

    def __init__(self, spec: ModelSpec) -> None:
        spec = spec.resolved()
        self.spec = spec
        self.name = spec.name
        self.device = torch.device(spec.device)
        self.dtype = devices.DTYPES[spec.dtype]
        # On a CPU the probe compares in float32, where packed and padded agree to 1e-4.
        probe_dtype = torch.float32 if self.device.type == "cpu" else self.dtype
        self._scorer = load_cross_encoder(spec, self.device, probe_dtype)
        self._transformer: Transformer = _transformer_of(self._scorer, spec.name)
        self._model: Any = self._transformer.model
        self._vocabulary = cast(Any, self._transformer.tokenizer)
        self.fingerprint = fingerprint(spec, self._model.config)
        self._causal = any(isinstance(module, LogitScore) for module in self._scorer)
        self._position_offset = position_offset(self._model.base_model)
        self._texts = TextTokenizer(backend_of(self._vocabulary))
        self._mend_padding_token()
        # Texts are tokenized whole to see whether they are too long; that is no mistake.
        self._vocabulary.deprecation_warnings[_TOO_LONG_WARNING] = True
        self.max_length = self._length_limit()
        self._tokenizer = self._choose_tokenizer()
        self.room = self._room()
        self._padded_features = self._scorer.preprocess([PROBE_PAIRS[0]])
        self.packed, self.why_padded = False, self._probe()
        self.packed = self.why_padded is None
        self._scorer.to(dtype=self.dtype)

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> list[Tokens]:
        """Token ids of each pair, cut to ``max_length``."""
        return self._tokenizer.encode(pairs)

    def offsets(self, texts: Sequence[str]) -> list[IntArray]:
        """Characters [start, stop) of the tokens of each text, shape (tokens, 2)."""
        return [text.offsets for text in self._texts.texts(texts)]

    def logits(self, batch: Sequence[Tokens]) -> FloatArray:
        """Raw outputs of the relevant label, shape (len(batch),), float32, input order.

        For two labels the difference to the other one, so that its sigmoid is the softmax.

        Raises:
            ScoringError: One sequence alone does not fit into memory.
        """
        return in_halves(self._logits, batch)

    @torch.inference_mode()
    def _logits(self, batch: Sequence[Tokens]) -> FloatArray:
        scores = self._packed(batch) if self.packed else self._padded(batch)
        if scores.ndim == 2 and scores.shape[1] == 2:
            wanted = self.spec.positive_label or 0
            scores = scores[:, wanted] - scores[:, 1 - wanted]
        if scores.numel() != len(batch):
            raise ModelError(
                f"{self.name!r} returned {scores.numel()} values for {len(batch)} pairs; a"
                " reranker has one label"
            )
        return scores.reshape(-1).float().cpu().numpy()

    def _padded(self, batch: Sequence[Tokens]) -> Tensor:
        pad_id = self._vocabulary.pad_token_id or 0
        features: dict[str, Any] = pad(batch, pad_id, self.device, left=self._causal)
        for name in list(features):
            if name not in self._padded_features:
                del features[name]
        features["modality"] = self._padded_features.get("modality", "text")
        scores: Tensor = self._scorer(features)["scores"]
        return scores.float()

    def _packed(self, batch: Sequence[Tokens]) -> Tensor:
        order = sorted(range(len(batch)), key=lambda i: len(batch[i]))
        row = pack([batch[i] for i in order], self._position_offset, self.device)
        with attending(row.layout):
            scores = self._last_token_scores(row) if self._causal else self._head_scores(row)
        restored = torch.empty(len(batch), dtype=torch.long)
        restored[torch.tensor(order)] = torch.arange(len(batch))
        return scores.float()[restored.to(scores.device)]

    def _head_scores(self, row: PackedRow) -> Tensor:
        inputs: dict[str, Any] = {"input_ids": row.input_ids, "position_ids": row.position_ids}
        if "token_type_ids" in self._padded_features:
            inputs["token_type_ids"] = row.token_type_ids
        self._adapter.reading(row.layout)
        try:
            scores: Tensor = self._model(**inputs).logits
        finally:
            self._adapter.reading(None)
        return scores

    def _last_token_scores(self, row: PackedRow) -> Tensor:
        """Projects the last position onto the answer tokens alone, not the whole vocabulary."""
        hidden = self._model.base_model(
            input_ids=row.input_ids, position_ids=row.position_ids, use_cache=False
        ).last_hidden_state
        answer = next(module for module in self._scorer if isinstance(module, LogitScore))
        project = self._model.get_output_embeddings()
        last = last_tokens(hidden, row.layout).float()  # (sequences, hidden)

        def logit(token: int) -> Tensor:
            bias = 0.0 if project.bias is None else project.bias[token].float()
            projected: Tensor = last @ project.weight[token].float() + bias
            return projected

        scores = logit(answer.true_token_id)
        if answer.false_token_id is not None:
            scores = scores - logit(answer.false_token_id)
        return scores

    def _probe(self) -> str | None:
        """Tries the packed path on a few pairs; why it cannot serve, or None."""
        if len(self._scorer) != 1 and not self._causal:
            return "the model has modules beside the transformer"
        batch = self.tokenize(PROBE_PAIRS)
        with torch.inference_mode():
            alone = [self._padded([tokens]).reshape(1, -1) for tokens in batch]
            expected = torch.cat(alone).cpu().numpy()
            self._adapter = HeadAdapter(self._model)
            return probe_packed(
                self.name,
                self._model,
                self.device,
                self.dtype,
                lambda: self._packed(batch).reshape(len(batch), -1).cpu().numpy(),
                expected,
            )

    def _choose_tokenizer(self) -> PairTokenizer:
        prompt = self.spec.instruction
        if prompt is None:
            prompt = self._scorer.prompts.get(self._scorer.default_prompt_name or "", None)
        own = PreprocessTokenizer(self._scorer, self.max_length, prompt)
        template = PairTemplate.learn(self._texts)
        if prompt or template is None:
            return own
        assembled = TemplateTokenizer(self._texts, template, self.max_length)
        pairs = [*PROBE_PAIRS, ("a long query " * 300, "passage"), ("query", "a passage " * 900)]
        same = all(
            np.array_equal(a.ids, b.ids) and np.array_equal(a.type_ids, b.type_ids)
            for a, b in zip(assembled.encode(pairs), own.encode(pairs), strict=True)
        )
        return assembled if same else own

    def _room(self) -> int:
        text = self._texts.texts(["a"])[0]
        special = len(self.tokenize([("a", "a")])[0]) - 2 * len(text.ids)
        # Inside a chat template a text's first and last token may split differently.
        margin = 0 if isinstance(self._tokenizer, TemplateTokenizer) else 4
        return self.max_length - special - margin

    def _length_limit(self) -> int:
        limits = [self.spec.max_length or 512]
        positions = getattr(self._model.config, "max_position_embeddings", None)
        if isinstance(positions, int) and positions > 0:
            limits.append(positions - self._position_offset)
        return min(limits)

    def _mend_padding_token(self) -> None:
        """Causal models often name no padding token, without which a batch cannot be padded."""
        tokenizer = self._vocabulary
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if getattr(self._model.config, "pad_token_id", None) is None:
            self._model.config.pad_token_id = tokenizer.pad_token_id


def load_pair_model(spec: ModelSpec) -> PairModel:
    """Loads the cross-encoder of a spec.

    Raises:
        InputError: The spec is wrong, or names a device that is not here.
        ModelError: There is no such model, or it is no reranker.
    """
    return PairModel(spec)


def _transformer_of(scorer: CrossEncoder, name: str) -> Transformer:
    first = scorer[0]
    if not isinstance(first, Transformer):
        raise ModelError(f"{name!r} begins with {type(first).__name__}, not with a transformer")
    return cast(Transformer, first)
