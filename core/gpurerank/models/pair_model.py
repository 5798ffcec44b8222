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
from gpurerank.models.attention import packed_pass
from gpurerank.models.device_errors import run_guarded
from gpurerank.models.loading import (
    ModelSpec,
    alike,
    fingerprint,
    load_blend,
    load_cross_encoder,
)
from gpurerank.models.packing import PackedRow, Prefix, Tokens, pack
from gpurerank.models.padding import PaddedBlock, pad, pad_by_length
from gpurerank.models.pooling import HeadAdapter, last_tokens
from gpurerank.models.precision import convert_weights
from gpurerank.models.prefixes import common_prefixes
from gpurerank.models.probe import Probe, Reference, position_offset
from gpurerank.models.runner import RowRunner, restore_order
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
    ("what is a probe", "an instrument that is put into what one wants to know more about"),
)


class PairModel:
    """One cross-encoder on one device.

    ``lanes`` threads may run batches while another tokenizes and prepares them; the engine has all.

    Attributes:
        name: As the spec gave it.
        fingerprint: Changes when the weights behind the name do.
        blend: How the logit is to be blended with a bi-encoder's similarity, or None.
        max_length: Tokens that a sequence may have, special tokens included.
        special_tokens: Tokens of a pair that are neither query nor passage.
        room: Tokens that query and passage may have together.
        packed: Whether batches run as one packed row; else padded.
        why_padded: Why not, or None.
        lanes: Batches that may run at the same time.
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
        self.blend = load_blend(spec)
        self._causal = any(isinstance(module, LogitScore) for module in self._scorer)
        self._position_offset = position_offset(self._model.base_model)
        self._texts = TextTokenizer(
            backend_of(self._vocabulary), devices.remembered_tokens(self.device)
        )
        self._mend_padding_token()
        # Texts are tokenized whole to see whether they are too long; that is no mistake.
        self._vocabulary.deprecation_warnings[_TOO_LONG_WARNING] = True
        self.max_length = self._length_limit()
        self._tokenizer = self._choose_tokenizer()
        self.special_tokens = self._special_tokens()
        self.room = self._room()
        self._pad_id = self._vocabulary.pad_token_id or 0
        # Whether what the passages of a query begin with is read once a batch.
        self._shares = False
        self._padded_features = self._scorer.preprocess([PROBE_PAIRS[0]])
        self.why_padded = self._probe()
        self.packed = self.why_padded is None
        self.lanes = devices.lanes_of(self.device, self.max_length) if self.packed else 1
        convert_weights(self._scorer, self.dtype)
        self._rows = RowRunner(self._packed, self.device, self._position_offset)

    @property
    def tokens_per_batch(self) -> tuple[int, int]:
        """Tokens below which a batch uses the device badly, and the most that it may have."""
        least, most = devices.tokens_per_batch(self.device, self.lanes)
        if not self._shares:
            return least, most
        # A prefix is read once a batch, but counts with each pair that has it.
        return 2 * least, max(most, 2 * least)

    def enter_lane(self) -> None:
        """Sets up the thread that calls for running batches beside the other lanes."""
        devices.enter_lane(self.lanes)

    def tokenize(self, items: Sequence[tuple[str, str]]) -> list[Tokens]:
        """Token ids of each pair, cut to ``max_length``."""
        return self._tokenizer.encode(items)

    def offsets(self, texts: Sequence[str]) -> list[IntArray]:
        """Characters [start, stop) of the tokens of each text, shape (tokens, 2)."""
        return self._texts.offsets(texts)

    def has_unread_word(self, text: str) -> bool:
        """Whether a word of a text is too long for the tokenizer and read as unknown."""
        return self._texts.has_unread_word(text)

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text, without special ones; what was counted is tokenized for good."""
        return [len(ids) for ids in self._texts.ids(texts)]

    def pair_lengths(self, pairs: Sequence[tuple[str, str]]) -> list[int]:
        """Tokens of each pair as the model reads it; safe on any thread.

        With a chat template the joints of the texts may differ by a token from what is run.
        """
        texts = self._texts.ids([text for pair in pairs for text in pair])
        return [
            min(self.max_length, self.special_tokens + len(query) + len(passage))
            for query, passage in zip(texts[::2], texts[1::2], strict=True)
        ]

    def prepare(
        self, items: Sequence[tuple[str, str]], tokens: Sequence[Tokens]
    ) -> PackedRow | list[PaddedBlock]:
        """Lays a batch out on the host, while another one may run; ``tokens`` are the items'."""
        if self.packed:
            prefixes: Sequence[Prefix] = ()
            if self._shares and not self._rows.may_replay(tokens):
                prefixes = common_prefixes(items, tokens)
            return self._rows.prepare(tokens, prefixes)
        return pad_by_length(tokens, self._pad_id, left=self._causal)

    def run(self, batch: PackedRow | list[PaddedBlock]) -> FloatArray:
        """Raw outputs of the relevant label, shape (pairs,), float32, in the batch's order.

        For two labels the difference to the other one, so that its sigmoid is the softmax.

        Raises:
            OutOfMemoryError: The batch does not fit.
            DeviceError: The GPU is lost.
            ScoringError: The model failed.
        """
        if isinstance(batch, PackedRow):
            return self._rows.run(batch)
        return run_guarded(lambda: self._run_padded(batch), self.device)

    @torch.inference_mode()
    def _run_padded(self, blocks: list[PaddedBlock]) -> FloatArray:
        logits = np.empty(sum(len(block.order) for block in blocks), dtype=np.float32)
        for block in blocks:
            logits[block.order] = self._padded(block).cpu().numpy()
        return logits

    def _padded(self, block: PaddedBlock) -> Tensor:
        features: dict[str, Any] = {
            name: tensor.to(self.device)
            for name, tensor in block.features.items()
            if name in self._padded_features
        }
        features["modality"] = self._padded_features.get("modality", "text")
        return self._relevance(self._scorer(features)["scores"])

    def _packed(self, row: PackedRow) -> Tensor:
        """One logit a sequence of the row, without waiting for the device."""
        return self._relevance(
            self._last_token_scores(row) if self._causal else self._head_scores(row)
        )

    def _relevance(self, scores: Tensor) -> Tensor:
        """Shape (sequences,), float32, of a head with one or two labels."""
        if scores.ndim == 2 and scores.shape[1] == 2:
            wanted = self.spec.positive_label or 0
            scores = scores[:, wanted].float() - scores[:, 1 - wanted].float()
        if scores.numel() != scores.shape[0]:
            raise ModelError(
                f"{self.name!r} returned {scores.numel()} values for {scores.shape[0]} pairs; a"
                " reranker has one label"
            )
        return scores.reshape(-1).float()

    def _head_scores(self, row: PackedRow) -> Tensor:
        inputs: dict[str, Any] = {"input_ids": row.input_ids, "position_ids": row.position_ids}
        if "token_type_ids" in self._padded_features:
            inputs["token_type_ids"] = row.segment_ids
        with packed_pass(row.layout, cls_only=self._adapter.cls_only):
            scores: Tensor = self._model(**inputs).logits
        return scores

    def _last_token_scores(self, row: PackedRow) -> Tensor:
        """Projects the last position onto the answer tokens alone, not the whole vocabulary."""
        with packed_pass(row.layout):
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

    @torch.inference_mode()
    def _probe(self) -> str | None:
        """Tries the packed path on a few pairs; why it cannot serve, or None."""
        if len(self._scorer) != 1 and not self._causal:
            return "the model has modules beside the transformer"
        batch = self.tokenize(PROBE_PAIRS)
        if not self._causal:
            self._adapter = HeadAdapter(self._model)

        def run_padded() -> FloatArray:
            alone = [self._padded(pad([tokens], self._pad_id)) for tokens in batch]
            return torch.cat(alone).cpu().numpy().reshape(-1, 1)

        def run_packed(indices: Sequence[int], prefixes: Sequence[Prefix] = ()) -> FloatArray:
            tokens = [batch[index] for index in indices]
            row = pack(tokens, self._position_offset, prefixes=prefixes)
            return restore_order(self._packed(row.to(self.device)), row).reshape(-1, 1)

        reference = Reference.measure(self._scorer, self.device, self.dtype, run_padded)
        probe = Probe(self.name, self._model, self.device, self.dtype, run_packed, reference)
        reason = probe.switch_to_packed()
        prefixes = common_prefixes(PROBE_PAIRS, batch, min_tokens=1) if self._causal else []
        if reason is None and prefixes:
            # Some models that answer with a token attend in both directions: no prefix is shared.
            every_index = range(len(batch))
            self._shares = probe.accepts(lambda: run_packed(every_index, prefixes))
        return reason

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
            np.array_equal(a.ids, b.ids) and np.array_equal(a.segment_ids, b.segment_ids)
            for a, b in zip(assembled.encode(pairs), own.encode(pairs), strict=True)
        )
        return assembled if same else own

    def _special_tokens(self) -> int:
        text = self._texts.ids(["a"])[0]
        return len(self.tokenize([("a", "a")])[0]) - 2 * len(text)

    def _room(self) -> int:
        # Inside a chat template a text's first and last token may split differently.
        margin = 0 if isinstance(self._tokenizer, TemplateTokenizer) else 4
        return self.max_length - self.special_tokens - margin

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


def load_pair_models(spec: ModelSpec) -> list[PairModel]:
    """Loads the cross-encoder of a spec, a copy for each device.

    Raises:
        InputError: The spec is wrong, or names a device that is not here, or unlike ones.
        ModelError: There is no such model, or it is no reranker.
    """
    return alike([PairModel(each) for each in spec.on_each_device()])


def _transformer_of(scorer: CrossEncoder, name: str) -> Transformer:
    first = scorer[0]
    if not isinstance(first, Transformer):
        raise ModelError(f"{name!r} begins with {type(first).__name__}, not with a transformer")
    return cast(Transformer, first)
