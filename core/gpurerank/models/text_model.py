"""A loaded bi-encoder: texts to token ids, token ids to vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor

from gpurerank.errors import ModelError
from gpurerank.models import devices
from gpurerank.models.attention import attending
from gpurerank.models.loading import ModelSpec, load_sentence_transformer
from gpurerank.models.memory import in_halves
from gpurerank.models.packing import Tokens, pack
from gpurerank.models.pooling import POOLERS
from gpurerank.models.probe import position_offset, probe_packed
from gpurerank.models.tokenization import readable
from gpurerank.types import FloatArray

PROBE_TEXTS = (
    "a short passage",
    "one",
    "difflib compares sequences of lines. " * 12,
    "Größe 高さ мир — naïve, 12.5 % of £3; see the notes below. " * 4,
)
_PASSAGE_PROMPTS = ("document", "passage", "corpus")


class TextModel:
    """One bi-encoder on one device. Not safe between threads: its owner thread uses it.

    Attributes:
        name: As the spec gave it.
        dim: Length of a vector.
        max_length: Tokens that a text may have, special tokens included.
        packed: Whether batches run as one packed row; else padded, by sentence-transformers.
        why_padded: Why not, or None.
    """

    def __init__(self, spec: ModelSpec) -> None:
        spec = spec.resolved()
        self.spec = spec
        self.name = spec.name
        self.device = torch.device(spec.device)
        self.dtype = devices.DTYPES[spec.dtype]
        probe_dtype = torch.float32 if self.device.type == "cpu" else self.dtype
        self._encoder = load_sentence_transformer(spec, self.device, probe_dtype)
        self.max_length = self._length_limit()
        self._encoder.max_seq_length = self.max_length
        self.dim = int(self._encoder.get_embedding_dimension() or 0)
        self.packed, self.why_padded = False, self._probe()
        self.packed = self.why_padded is None
        self._encoder.to(dtype=self.dtype)

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

    def tokenize(self, texts: Sequence[str], prompt: str) -> list[Tokens]:
        """Token ids of each text, cut to ``max_length``."""
        clean = [prompt + readable(text) for text in texts]
        encoded = self._encoder.tokenizer(clean, truncation=True, max_length=self.max_length)
        return [
            Tokens(
                np.asarray(one.ids, np.int64),
                np.asarray(one.type_ids, np.int64),
                bool(one.overflowing),
            )
            for one in encoded.encodings
        ]

    def embed(self, texts: Sequence[str], batch: Sequence[Tokens], prompt: str) -> FloatArray:
        """Vectors, shape (len(batch), dim), float32, input order.

        Args:
            texts: The texts of the batch; what the padded path reads.
            batch: Their tokens; what the packed path reads.
            prompt: What ``tokenize`` was given.
        """
        if self.packed:
            return in_halves(self._packed, batch)
        return in_halves(lambda some: self._padded(some, prompt), texts)

    @torch.inference_mode()
    def _packed(self, batch: Sequence[Tokens]) -> FloatArray:
        order = sorted(range(len(batch)), key=lambda i: len(batch[i]))
        row = pack([batch[i] for i in order], self._position_offset, self.device)
        inputs: dict[str, Any] = {"input_ids": row.input_ids, "position_ids": row.position_ids}
        if self._has_segments:
            inputs["token_type_ids"] = row.token_type_ids
        with attending(row.layout):
            hidden = self._transformer.model(**inputs).last_hidden_state
        pooled = self._pool(hidden, row.layout)
        features: dict[str, Tensor] = {"sentence_embedding": pooled.to(self._head_dtype)}
        for module in list(self._encoder)[2:]:
            features = module(features)
        vectors = np.empty((len(batch), features["sentence_embedding"].shape[1]), np.float32)
        vectors[order] = features["sentence_embedding"].float().cpu().numpy()
        return vectors

    @torch.inference_mode()
    def _padded(self, texts: Sequence[str], prompt: str) -> FloatArray:
        vectors = self._encoder.encode(
            [readable(text) for text in texts],
            # Not None, for which the model's default prompt would be taken.
            prompt=prompt,
            batch_size=len(texts),
            convert_to_tensor=True,
            show_progress_bar=False,
        )
        assert isinstance(vectors, Tensor)
        return vectors.float().cpu().numpy()

    def _length_limit(self) -> int:
        limits = [self._encoder.max_seq_length or 512]
        if self.spec.max_length is not None:
            limits.append(self.spec.max_length)
        model: Any = getattr(self._encoder[0], "model", None)
        positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
        if isinstance(positions, int) and positions > 0:
            limits.append(positions - position_offset(model))
        return min(limits)

    def _probe(self) -> str | None:
        """Embeds a few texts packed and padded; why packing cannot serve, or None."""
        why = self._unsupported()
        if why is not None:
            return why
        batch = self.tokenize(PROBE_TEXTS, "")
        return probe_packed(
            self.name,
            self._transformer.model,
            self.device,
            self.dtype,
            lambda: self._packed(batch),
            np.concatenate([self._padded([text], "") for text in PROBE_TEXTS]),
        )

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
        # Normalizing in half precision would leave vectors whose length is off by 0.3%.
        trained = any(True for module in modules[2:] for _ in module.parameters())
        self._head_dtype = self.dtype if trained else torch.float32
        self._has_segments = "token_type_ids" in modules[0].preprocess(["one"])
        self._position_offset = position_offset(modules[0].model)
        return None


def load_text_model(spec: ModelSpec) -> TextModel:
    """Loads the bi-encoder of a spec.

    Raises:
        InputError: The spec is wrong, or names a device that is not here.
        ModelError: There is no such model, or it gives no vectors.
    """
    model = TextModel(spec)
    if model.dim == 0:
        raise ModelError(f"{spec.name!r} does not say how long its vectors are")
    return model
