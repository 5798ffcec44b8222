"""A loaded bi-encoder: texts to token ids, token ids to vectors."""

from __future__ import annotations

import copy
import logging
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from tokenizers import Encoding
from torch import Tensor, nn

from gpurerank.errors import ModelError
from gpurerank.models import devices
from gpurerank.models.attention import packed_pass
from gpurerank.models.device_errors import run_guarded
from gpurerank.models.loading import ModelSpec, alike, fingerprint, load_sentence_transformer
from gpurerank.models.packing import Layout, PackedRow, Tokens, pack
from gpurerank.models.pooling import POOLERS, first_tokens
from gpurerank.models.precision import convert_weights
from gpurerank.models.probe import Probe, Reference, position_offset
from gpurerank.models.remembered import RememberedRows
from gpurerank.models.runner import RowRunner, restore_order
from gpurerank.models.tokenization import backend_of, readable
from gpurerank.models.word_limit import WordLimit
from gpurerank.types import FloatArray, IntArray, TextToken

logger = logging.getLogger("gpurerank")

PROBE_TEXTS = (
    "a short passage",
    "one",
    "difflib compares sequences of lines. " * 12,
    "Größe 高さ мир — naïve, 12.5 % of £3; see the notes below. " * 4,
)
# What a cross-encoder reads of a pair unless it is told otherwise.
_READABLE = 512
# 43,000 vectors of 384 numbers.
_REMEMBERED_BYTES = 64 << 20
_PASSAGE_PROMPTS = ("document", "passage", "corpus")


class TextModel:
    """One bi-encoder on one device. An item is (prompt, text).

    ``lanes`` threads may run batches while another tokenizes and prepares them; the engine has all.

    Attributes:
        name: As the spec gave it.
        fingerprint: Changes when the weights behind the name do.
        dim: Length of a vector.
        matryoshka_dims: Shorter lengths that vectors can be cut to, as the configuration says.
        hidden_size: Length of a token's hidden state; 0 where the model does not say.
        special_ids: Tokens that mark where a text begins and ends, or fill it up.
        position_offset: First position of a sequence, where ``packed``.
        max_length: Tokens that a text may have, special tokens included.
        readable_length: Tokens that the weights can read, where that is more: many a bi-encoder
            stops long before its positions end. At most 512, or ``max_length``.
        remembered: What was embedded before.
        packed: Whether batches run as one packed row; else padded, by sentence-transformers.
        why_padded: Why not, or None.
        lanes: Batches that may run at the same time.
    """

    def __init__(self, spec: ModelSpec) -> None:
        spec = spec.resolved()
        self.spec = spec
        self.name = spec.name
        self.device = torch.device(spec.device)
        self.dtype = devices.DTYPES[spec.dtype]
        probe_dtype = torch.float32 if self.device.type == "cpu" else self.dtype
        self._encoder = load_sentence_transformer(spec, self.device, probe_dtype)
        self.fingerprint = fingerprint(spec, getattr(self._encoder[0], "config", None))
        self.max_length, self.readable_length = self._length_limits()
        self._encoder.max_seq_length = self.max_length
        self._encoding = threading.Lock()
        # The padded path sets its own padding and truncation, on another thread.
        self._tokenizer = copy.deepcopy(self._encoder.tokenizer)
        self._word_limit = WordLimit(backend_of(self._tokenizer))
        self._warned_of_words = False
        self.special_ids = _marks(self._tokenizer)
        self.dim = int(self._encoder.get_embedding_dimension() or 0)
        config = getattr(getattr(self._encoder[0], "model", None), "config", None)
        self.matryoshka_dims = _matryoshka_dims(config, self.dim)
        self.hidden_size = int(getattr(config, "hidden_size", 0))
        self.remembered = RememberedRows(_REMEMBERED_BYTES)
        self.why_padded = self._probe()
        self.packed = self.why_padded is None
        self.lanes = devices.lanes_of(self.device, self.max_length) if self.packed else 1
        convert_weights(self._encoder, self.dtype)
        if self.packed:
            self._rows = RowRunner(self._packed, self.device, self.position_offset)

    def prompt(self, *, query: bool) -> str:
        """Text that goes before each query or passage; empty for most models."""
        if query and self.spec.instruction is not None:
            return self.spec.instruction
        # As encode_query and encode_document: the first prompt that is there, also an empty one.
        prompts = self._encoder.prompts
        names = ("query",) if query else _PASSAGE_PROMPTS
        named = next((prompts[name] for name in names if prompts.get(name) is not None), None)
        if named is None:
            named = prompts.get(self._encoder.default_prompt_name or "")
        return named or ""

    @property
    def tokens_per_batch(self) -> tuple[int, int]:
        """Tokens below which a batch uses the device badly, and the most that it may have."""
        return devices.tokens_per_batch(self.device, self.lanes)

    def enter_lane(self) -> None:
        """Sets up the thread that calls for running batches beside the other lanes."""
        devices.enter_lane(self.lanes)

    def tokenize(
        self, items: Sequence[tuple[str, str]], max_length: int | None = None
    ) -> list[Tokens]:
        """Token ids of each text behind its prompt, cut to ``max_length``, or the model's own."""
        clean = [prompt + readable(text) for prompt, text in items]
        limit = max_length or self.max_length
        encoded = self._tokenizer(clean, truncation=True, max_length=limit)
        return [
            Tokens.from_arrays(
                np.array(one.ids, np.int32),
                np.array(one.type_ids, np.int32),
                truncated=bool(one.overflowing) or self._has_unread_word(text, one),
            )
            for text, one in zip(clean, encoded.encodings, strict=True)
        ]

    def text_tokens(self, texts: Sequence[str], special_tokens: bool) -> list[list[TextToken]]:
        """The tokens of each text, none cut."""
        # A copy: the feeder's own thread sets truncation and padding in the other one.
        tokenizer = copy.deepcopy(self._tokenizer).backend_tokenizer
        tokenizer.no_truncation()
        tokenizer.no_padding()
        encodings = tokenizer.encode_batch(
            [readable(text) for text in texts], add_special_tokens=special_tokens
        )
        return [
            [
                TextToken(number, text, bool(special), *span)
                for number, text, special, span in zip(
                    one.ids, one.tokens, one.special_tokens_mask, one.offsets, strict=True
                )
            ]
            for one in encodings
        ]

    def _has_unread_word(self, text: str, encoding: Encoding) -> bool:
        is_exceeded = self._word_limit.is_exceeded(text, encoding)
        if is_exceeded and not self._warned_of_words:
            # A vector has no place for a mark.
            self._warned_of_words = True
            logger.warning(
                "%r reads a word of over %d characters as unknown, so the text's vector does not"
                " depend on it; put spaces into such words (reported once)",
                self.name,
                self._word_limit.characters,
            )
        return is_exceeded

    def prepare(
        self, items: Sequence[tuple[str, str]], tokens: Sequence[Tokens]
    ) -> PackedRow | list[tuple[str, str]]:
        """Lays a batch out on the host, while another one may run; ``tokens`` are the items'."""
        return self._rows.prepare(tokens) if self.packed else list(items)

    def blank(self, count: int) -> FloatArray:
        """Room for the vectors of so many texts."""
        return np.empty((count, self.dim), dtype=np.float32)

    def run(self, batch: PackedRow | list[tuple[str, str]]) -> FloatArray:
        """Vectors, shape (texts, dim), float32, in the batch's order.

        Raises:
            OutOfMemoryError: The batch does not fit.
            DeviceError: The GPU is lost.
            ScoringError: The model failed.
        """
        if isinstance(batch, PackedRow):
            return self._rows.run(batch)
        return run_guarded(lambda: self._padded(batch), self.device)

    def states(self, row: PackedRow) -> Tensor:
        """Last hidden state of every token of a row on the device, shape (1, tokens, hidden)."""
        with packed_pass(row.layout):
            return self._read(row)

    def pooled(self, hidden: Tensor, layout: Layout) -> Tensor:
        """One vector a sequence of hidden states that lie so, shape (sequences, dim), float32."""
        # Normalizing in half precision would leave vectors whose length is off by 0.3%.
        dtype = next((weight.dtype for weight in self._head.parameters()), torch.float32)
        features: dict[str, Tensor] = {"sentence_embedding": self._pool(hidden, layout).to(dtype)}
        for module in self._head:
            features = module(features)
        return features["sentence_embedding"].float()

    def encode(
        self, items: Sequence[tuple[str, str]], *, tokens: bool = False
    ) -> Iterator[tuple[list[int], Any]]:
        """sentence-transformers' own results, padded: for each prompt its items' places and those.

        Args:
            items: What is read.
            tokens: Whether features by name are wanted for each item, those of its tokens among
                them; else one tensor of vectors.
        """
        for prompt in {prompt for prompt, _ in items}:
            places = [place for place, (own, _) in enumerate(items) if own == prompt]
            texts = [readable(items[place][1]) for place in places]
            # Two engines may run it, and it sets its tokenizer up for each call.
            with self._encoding:
                found = self._encoder.encode(
                    texts,
                    # Not None, for which the model's default prompt would be taken.
                    prompt=prompt,
                    show_progress_bar=False,
                    output_value=None if tokens else "sentence_embedding",
                    convert_to_tensor=True,
                )
            yield places, found

    def _packed(self, row: PackedRow) -> Tensor:
        """One vector a sequence of the row, without waiting for the device."""
        with packed_pass(row.layout, cls_only=self._pool is first_tokens) as packed:
            hidden = self._read(row)
        return self.pooled(hidden, packed.layout)

    def _read(self, row: PackedRow) -> Tensor:
        inputs: dict[str, Any] = {"input_ids": row.input_ids, "position_ids": row.position_ids}
        if self._has_segments:
            inputs["token_type_ids"] = row.segment_ids
        hidden: Tensor = self._transformer.model(**inputs).last_hidden_state
        return hidden

    @torch.inference_mode()
    def _padded(self, items: list[tuple[str, str]]) -> FloatArray:
        vectors = self.blank(len(items))
        for places, found in self.encode(items):
            vectors[places] = found.float().cpu().numpy()
        return vectors

    def _length_limits(self) -> tuple[int, int]:
        limits = [self._encoder.max_seq_length or 512]
        if self.spec.max_length is not None:
            limits.append(self.spec.max_length)
        model: Any = getattr(self._encoder[0], "model", None)
        positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
        if not (isinstance(positions, int) and positions > 0):
            return min(limits), min(limits)
        positions -= position_offset(model)
        own = min(*limits, positions)
        return own, max(own, min(positions, _READABLE))

    @torch.inference_mode()
    def _probe(self) -> str | None:
        """Embeds a few texts packed and padded; why packing cannot serve, or None."""
        why = self._unsupported()
        if why is not None:
            return why
        items = [("", text) for text in PROBE_TEXTS]
        tokens = self.tokenize(items)

        def run_packed(indices: Sequence[int]) -> FloatArray:
            row = pack([tokens[index] for index in indices], self.position_offset)
            return restore_order(self._packed(row.to(self.device)), row)

        def run_padded() -> FloatArray:
            return np.concatenate([self._padded([item]) for item in items])

        reference = Reference.measure(self._encoder, self.device, self.dtype, run_padded)
        model = self._transformer.model
        probe = Probe(self.name, model, self.device, self.dtype, run_packed, reference)
        return probe.switch_to_packed()

    def _unsupported(self) -> str | None:
        modules = list(self._encoder)
        if len(modules) < 2 or not isinstance(modules[0], Transformer):
            return "the model does not begin with a transformer and a pooling"
        if not isinstance(modules[1], Pooling):
            return "the model does not begin with a transformer and a pooling"
        if modules[1].pooling_mode not in POOLERS or not modules[1].include_prompt:
            return f"pooling {modules[1].pooling_mode!r} has no packed form"
        self._transformer = modules[0]
        self._pool = POOLERS[modules[1].pooling_mode]
        self._head = nn.ModuleList(modules[2:])
        self._has_segments = "token_type_ids" in modules[0].preprocess(["one"])
        self.position_offset = position_offset(modules[0].model)
        return None


def load_text_models(spec: ModelSpec) -> list[TextModel]:
    """Loads the bi-encoder of a spec, a copy for each device.

    Raises:
        InputError: The spec is wrong, or names a device that is not here.
        ModelError: There is no such model, or it gives no vectors.
    """
    models = [TextModel(each) for each in spec.on_each_device()]
    if models[0].dim == 0:
        raise ModelError(f"{spec.name!r} does not say how long its vectors are")
    return alike(models)


def _matryoshka_dims(config: Any, dim: int) -> tuple[int, ...]:
    """Lengths below ``dim`` of a Matryoshka model, from the fields that vLLM reads too."""
    declared = getattr(config, "matryoshka_dimensions", None)
    if declared:
        return tuple(int(length) for length in declared if 0 < int(length) < dim)
    return tuple(range(1, dim)) if getattr(config, "is_matryoshka", False) else ()


def _marks(tokenizer: Any) -> IntArray:
    names = ("cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id", "pad_token_id")
    found = [getattr(tokenizer, name, None) for name in names]
    return np.array([each for each in found if each is not None], dtype=np.int64)
