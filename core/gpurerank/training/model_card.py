"""The model card of a trained model: its data, its hyperparameters and its nDCG@10."""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict
from pathlib import Path

from gpurerank.models.blend import Blend
from gpurerank.training.hyperparameters import TrainOptions
from gpurerank.training.training_report import TrainReport

_CARD = """\
---
library_name: sentence-transformers
pipeline_tag: text-ranking
base_model: {base}
tags: [cross-encoder, reranker, gpurerank]
---
# A reranker trained with gpurerank

```python
from gpurerank import Reranker

reranker = Reranker("PATH/OF/THIS/FOLDER")
```
{blend}
## Training
| | |
|---|---|
| base model | {base}{new_head} |
| loss | {loss} |
| training lists | {training_lists:,}, each a query with relevant passages and negatives |
| epochs | {epochs} |
| lists per step | {lists_per_step} |
| peak learning rate | {learning_rate} |
| maximum tokens per pair | {max_length} |
| trained weights | {trained_weights} |
| seed | {seed} |
| versions | {versions} |

{notes}

## Evaluation
{evaluation}

## Limitations
{limitations}
"""

_BLEND = """
The logit is blended with a bi-encoder's similarity (`blend.json`): {scale} * (cross-encoder logit +
{weight} * (similarity - {center})), with the bi-encoder {bi_encoder!r}. Late interaction makes up
{token_share:.0%} of the similarity, the cosine the rest. `Reranker` blends by itself.
`sentence_transformers.CrossEncoder` computes the cross-encoder logit alone, which ranks worse.
"""

_LIMITATIONS = (
    "The model knows the kind of text that it was trained on. Evaluate it on your own queries"
    " before you use it."
)


def write_model_card(options: TrainOptions, blend: Blend | None, report: TrainReport) -> None:
    """Writes ``README.md`` into the model's folder, without any path of this machine."""
    base = Path(options.base).name if Path(options.base).is_dir() else options.base
    rank = options.lora_rank
    text = _CARD.format(
        base=base,
        new_head=" with a new head" if options.new_head else "",
        blend="" if blend is None else _BLEND.format(**asdict(blend)),
        loss=options.loss,
        training_lists=report.training_lists,
        epochs=options.epochs,
        lists_per_step=options.lists_per_step,
        learning_rate=options.learning_rate,
        max_length=options.max_length,
        trained_weights="all" if rank is None else f"LoRA adapters of rank {rank}, merged",
        seed=options.seed,
        versions=_versions(),
        notes="\n".join(f"- {note}" for note in report.notes),
        evaluation=_evaluation(report),
        limitations=_limitations(report),
    )
    (options.model_folder / "README.md").write_text(text, encoding="utf-8")


def _evaluation(report: TrainReport) -> str:
    if report.after is None:
        return "No queries were held out, so the model was not evaluated."
    return (
        f"nDCG@10 over {report.held_out_lists:,} held-out queries, each with its relevant passages"
        " and the best others by bi-encoder and BM25:\n\n"
        "| bi-encoder | base model | this model |\n|---|---|---|\n"
        f"| {report.bi_encoder:.4f} | {report.before:.4f} | {report.after:.4f} |"
    )


def _limitations(report: TrainReport) -> str:
    if report.after is not None and report.before is not None and report.after <= report.before:
        return (
            "**Do not use this model: it ranks the held-out queries no better than its base.** "
            + _LIMITATIONS
        )
    return _LIMITATIONS


def _versions() -> str:
    packages = ("gpurerank", "sentence-transformers", "transformers", "torch")
    return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
