"""The model card of a trained model: what it is, how it was made, what it reached."""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict

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
# A reranker tuned with gpurerank

```python
from gpurerank import Reranker

reranker = Reranker("PATH/OF/THIS/FOLDER")
```
{blend}
## How it was made
| | |
|---|---|
| base | {base}{new_head} |
| loss | {loss} |
| lists | {training_lists:,}, each a query with its relevant and its negative passages |
| epochs | {epochs} |
| lists a step | {lists_per_step} |
| learning rate | {learning_rate} |
| tokens of a pair | {max_length} |
| weights trained | {trained} |
| seed | {seed} |
| versions | {versions} |

{notes}

## What it reached
{figures}

## Limits
{limits}
"""

_BLEND = """
Its logit is blended with a bi-encoder's similarity (`blend.json`): {scale} * (own + {weight} *
(similarity - {center})), with the bi-encoder {bi_encoder!r}. The share of late interaction in the
similarity is {token_share:.0%}, the rest is the cosine. `Reranker` does that. Loaded by
`sentence_transformers.CrossEncoder` it gives its own logit alone, which ranks worse.
"""


def write_card(options: TrainOptions, blend: Blend | None, report: TrainReport) -> None:
    """Writes ``README.md`` beside the weights; no folder of this machine is named in it."""
    base = options.base.rstrip("/").rsplit("/", 1)[-1] if "/" in options.base else options.base
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
        trained="all" if options.lora_rank is None else f"LoRA of rank {options.lora_rank}, merged",
        seed=options.seed,
        versions=_versions(),
        notes="\n".join(f"- {note}" for note in report.notes),
        figures=_figures(report),
        limits=_limits(report),
    )
    (options.model_folder / "README.md").write_text(text, encoding="utf-8")


def _figures(report: TrainReport) -> str:
    if report.after is None:
        return "Nothing was held out, so nothing was measured."
    return (
        f"nDCG@10 over {report.held_out_lists:,} held-out queries, each with its relevant passages"
        " and the first stages' best others:\n\n"
        "| bi-encoder | base | this model |\n|---|---|---|\n"
        f"| {report.bi_encoder:.4f} | {report.before:.4f} | {report.after:.4f} |"
    )


def _limits(report: TrainReport) -> str:
    told = "It knows what its training data knows; measure it on what you will ask it."
    if report.after is not None and report.before is not None and report.after <= report.before:
        return f"**It ranks the held-out queries no better than its base: do not use it.** {told}"
    return told


def _versions() -> str:
    names = ("gpurerank", "sentence-transformers", "transformers", "torch")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
