"""Whole training runs on tiny models: their files, how they continue, what they refuse."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from sentence_transformers import CrossEncoder as Reference

from benchmarks.embedded_weights import ship
from gpurerank import BiEncoder, DataError, InputError, ModelNotFoundError, Reranker
from gpurerank.cli.train import train as train_command
from gpurerank.late_interaction import LateInteraction
from gpurerank.models import embedded as shipped
from gpurerank.models.blend import FILE_NAME, read_blend
from gpurerank.ranking import logit_of, sigmoids
from gpurerank.training.hyperparameters import MiningOptions, TrainingSource, TrainOptions
from gpurerank.training.training_lists import read_lists
from gpurerank.training.training_run import choose_blend, train
from gpurerank.training.training_sources import read_pairs, read_source, sample_collection
from tests.conftest import InProcess
from tests.time_limits import HANG_S

TOPICS = ("cats", "rivers", "violins", "taxes", "bread", "glaciers", "chess", "bees")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.tsv"
    rows = [f"what of {t} {n}\tfact {n} about {t}" for t in TOPICS for n in range(3)]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def options(pairs: Path, tiny: str, tmp_path: Path) -> TrainOptions:
    return TrainOptions(
        sources=(TrainingSource(pairs),),
        output=tmp_path / "run",
        base=tiny,
        device="cpu",
        lists_per_step=4,
        learning_rate=1e-3,
        save_steps=2,
        bfloat16=False,
        show_progress=False,
        seed=7,
    )


def weights(folder: Path) -> dict[str, np.ndarray]:
    return dict(load_file(folder / "model.safetensors"))


def assert_same_weights(one: Path, other: Path) -> None:
    expected = weights(other)
    for name, value in weights(one).items():
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-6, err_msg=name)


def test_a_run_writes_a_model_that_both_libraries_load(
    options: TrainOptions, bi_encoder: BiEncoder
) -> None:
    messages: list[str] = []
    report = train(options, embedder=bi_encoder, on_message=messages.append)
    assert report.training_lists + report.held_out_lists <= 24
    assert report.held_out_lists == 2
    assert any("22 queries" in line for line in messages)
    scored = [("what of cats 1", "fact 1 about cats"), ("what of cats 1", "bees")]
    with Reranker(str(report.model), dtype="float32") as reranker:
        ours = reranker.score_pairs(scored)
    np.testing.assert_allclose(ours, Reference(str(report.model)).predict(scored), atol=1e-4)
    card = (report.model / "README.md").read_text()
    assert f"{report.after:.4f}" in card
    assert str(options.output.parent) not in card
    assert train(options, embedder=bi_encoder, on_message=messages.append) == report
    assert "is finished" in messages[-1]
    with pytest.raises(InputError, match="holds a run with another epochs"):
        train(replace(options, epochs=2.0), embedder=bi_encoder)


def test_a_killed_run_continues_to_the_same_result(options: TrainOptions, pairs: Path) -> None:
    whole = replace(options, output=options.output.with_name("whole"), epochs=6.0, patience=0)
    train(whole)
    arguments = [
        *(sys.executable, "-m", "gpurerank.cli", "train", str(pairs), "-o", str(options.output)),
        *("--base", options.base, "--device", "cpu", "--lists-per-step", "4", "--seed", "7"),
        *("--learning-rate", "1e-3", "--save-steps", "2", "--no-bfloat16", "--epochs", "6"),
        *("--patience", "0"),
    ]
    environment = {**os.environ, "COLUMNS": "120"}
    with (options.output.parent / "stderr").open("w") as errors:
        first = subprocess.Popen(arguments, stderr=errors, env=environment)
        deadline = time.monotonic() + HANG_S
        while not list(options.checkpoints.glob("checkpoint-*/trainer_state.json")):
            assert first.poll() is None, (options.output.parent / "stderr").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert not (options.output / "report.json").exists()
    second = subprocess.run(
        arguments, capture_output=True, text=True, env=environment, timeout=HANG_S, check=True
    )
    assert "earlier start of this run mined" in second.stderr
    assert "trained" in second.stdout
    assert_same_weights(options.model_folder, whole.model_folder)


@pytest.mark.parametrize("loss", ["lambda", "pairwise"])
def test_losses_of_sentence_transformers_train(
    options: TrainOptions, bi_encoder: BiEncoder, loss: str
) -> None:
    report = train(replace(options, loss=loss, held_out_share=0.0), embedder=bi_encoder)  # type: ignore[arg-type]
    assert report.after is None
    assert any("train_loss" in entry for entry in report.log)


def test_lora_is_merged_into_the_weights(
    options: TrainOptions, bi_encoder: BiEncoder, tiny: str
) -> None:
    report = train(replace(options, lora_rank=4), embedder=bi_encoder)
    tuned, base = weights(report.model), weights(Path(tiny))
    assert tuned.keys() == base.keys()
    changed = {name for name in base if not np.array_equal(tuned[name], base[name])}
    assert any("query.weight" in name for name in changed)
    assert not any("embeddings" in name for name in changed)
    Reranker(str(report.model)).rank("what of bees", ["fact 1 about bees", "chess"])


def test_a_teacher_is_distilled(options: TrainOptions, bi_encoder: BiEncoder, tiny: str) -> None:
    report = train(replace(options, teacher=tiny), embedder=bi_encoder)
    lists = (options.output / "lists.jsonl").read_text().splitlines()
    first = json.loads(lists[0])
    reference = Reference(tiny, device="cpu")
    expected = reference.predict(
        [(first["query"], passage) for passage in first["passages"]], activation_fn=None
    )
    scores = 1 / (1 + np.exp(-np.array(first["teacher"])))
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    assert report.training_lists == len(lists)


def test_the_embedded_model_is_trained_on_top_of_its_bi_encoder_and_ships(
    options: TrainOptions, bi_encoder: BiEncoder, tmp_path: Path
) -> None:
    embedded_options = replace(
        options,
        base="embedded",
        blend_weight=10.0,
        blend_token_share=0.5,
        epochs=0.2,
        max_length=32,
        unlabelled=4,
        learning_rate=1e-5,
    )
    report = train(embedded_options, embedder=bi_encoder)
    assert report.training_lists >= 22
    blend = read_blend(report.model / FILE_NAME)
    assert (blend.weight, blend.token_share) == (10.0, 0.5)
    first = json.loads((embedded_options.output / "lists.jsonl").read_text().splitlines()[0])
    late = LateInteraction(device="cpu")
    pairs = [(first["query"], passage) for passage in first["passages"]]
    np.testing.assert_allclose(first["late"], late.similarities(pairs)[1], atol=0.01)
    late.close()
    tuned, base = weights(report.model), weights(shipped.base_folder())
    words = "embeddings.word_embeddings.weight"
    name = next(name for name in tuned if name.endswith(words))
    np.testing.assert_array_equal(
        tuned[name], next(v for k, v in base.items() if k.endswith(words))
    )
    delta = tmp_path / "shipped" / "delta.safetensors"
    ship(report.model, delta)
    assert delta.with_suffix(".sha256").is_file()
    assert not any("embeddings" in name for name in shipped.load_delta(delta))
    assert (delta.parent / FILE_NAME).is_file()
    card = (report.model / "README.md").read_text()
    assert "blend.json" in card
    # Lists of a run that began before its base embedded_options for late interaction.
    mined = embedded_options.output / "lists.jsonl"
    whole = mined.read_text()
    mined.write_text(
        "".join(json.dumps(json.loads(x) | {"late": []}) + "\n" for x in [*whole.splitlines()])
    )
    (embedded_options.output / "report.json").unlink()
    train(embedded_options, embedder=bi_encoder)
    assert mined.read_text() == whole
    assert "Late interaction makes up\n50% of the similarity" in card


def test_a_run_continues_that_began_before_an_option_existed(
    options: TrainOptions, bi_encoder: BiEncoder
) -> None:
    train(options, embedder=bi_encoder)
    path = options.output / "options.json"
    recorded = json.loads(path.read_text())
    path.write_text(json.dumps({n: v for n, v in recorded.items() if n != "blend_token_share"}))
    train(options, embedder=bi_encoder)
    with pytest.raises(InputError, match="another blend_weight, blend_token_share"):
        train(replace(options, blend_weight=5.0, blend_token_share=0.5), embedder=bi_encoder)


def test_scores_of_a_heavy_blend_stay_apart(options: TrainOptions) -> None:
    for weight in (10.0, 65.0, 160.0):
        blend = choose_blend(replace(options, blend_weight=weight))
        assert blend is not None
        logits = blend.logits(np.zeros(3, np.float32), np.array([0.8, 0.9, 1.0], np.float32))
        scores = sigmoids(logits)
        assert scores[0] < scores[1] < scores[2] < 1


def test_pairs_are_read_from_json_lines_too(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"query": "a", "passage": "b"}\n\n{"query": "a", "passage": "c"}\n')
    collection = read_pairs(path)
    assert collection.judgements == {"q0": {"p0": 1, "p1": 1}}
    assert [d.text for d in collection.documents.values()] == ["b", "c"]


def test_bad_pairs_are_counted_and_dropped(pairs: Path) -> None:
    pairs.write_text("only a query\nq\tp\n \tp\nq\t \nq\tp\n\nq\ttwo\tthree\nr\ts\n")
    collection = read_source(TrainingSource(pairs))
    assert collection.judgements == {"q0": {"p0": 1}, "q1": {"p1": 1}}
    faults = [str(fault) for fault in collection.faults]
    assert "not a query, a tab and a passage, left out: 2 (pairs.tsv:1;" in faults[0]
    assert faults[1].startswith("pair whose query is blank or no text, left out: 1 (pairs.tsv:3")
    assert faults[2].startswith("pair whose passage is blank or no text, left out: 1 (pairs.tsv:4")
    assert faults[3].startswith("duplicate pair, used once: 1 (pairs.tsv:5")


@pytest.mark.parametrize("text", ["", "\n\n", "only a query\n"])
def test_a_file_without_pairs_is_named(pairs: Path, text: str) -> None:
    pairs.write_text(text)
    with pytest.raises(DataError, match="holds no pair"):
        read_source(TrainingSource(pairs))


def test_faults_in_the_data_are_reported(
    options: TrainOptions, pairs: Path, bi_encoder: BiEncoder
) -> None:
    pairs.write_text(pairs.read_text() + "a query alone\n")
    report = train(replace(options, held_out_share=0.0), embedder=bi_encoder)
    assert "left out: 1 (pairs.tsv:25)" in report.notes[0]
    assert "left out: 1" in (report.model / "README.md").read_text()


def test_one_pair_teaches_nothing(
    options: TrainOptions, pairs: Path, bi_encoder: BiEncoder
) -> None:
    pairs.write_text("a query\tits only passage\n")
    with pytest.raises(DataError, match="no query has both"):
        train(options, embedder=bi_encoder)


def test_a_source_is_parsed_from_the_right(pairs: Path) -> None:
    folder = pairs.parent
    assert TrainingSource.parse(f"{folder}@dev:20:300") == TrainingSource(folder, "dev", 20, 300)
    assert TrainingSource.parse(f"{folder}:20") == TrainingSource(folder, "train", 20)
    assert TrainingSource.parse(str(pairs)) == TrainingSource(pairs)
    with pytest.raises(InputError, match="there is no file or folder"):
        TrainingSource.parse("/no/such/place@train")


def test_a_sample_keeps_the_judged_passages(pairs: Path) -> None:
    collection = read_pairs(pairs)
    sample = sample_collection(
        collection, TrainingSource(pairs, "train", 3, 5), np.random.default_rng(3)
    )
    assert len(sample.judgements) == 3
    assert len(sample.documents) == 5
    assert all(d in sample.documents for judged in sample.judgements.values() for d in judged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sources": ()}, "no training data"),
        ({"loss": "hinge"}, "loss is 'hinge'"),
        ({"held_out_share": 1.0}, "held_out_share is 1.0"),
        ({"epochs": 0.0}, "epochs is 0.0"),
        ({"lora_rank": 0}, "lora_rank is 0"),
        ({"new_head": True}, "new_head needs the base 'embedded'"),
        ({"blend_weight": 5.0, "loss": "lambda"}, "cannot train a blend"),
        ({"blend_weight": 5.0, "blend_token_share": 2.0}, "blend_token_share is 2.0"),
        ({"blend_token_share": 0.5}, "needs blend_weight"),
        ({"blend_weight": 0.0}, "blend_weight is 0.0"),
        ({"blend_weight": 1.0, "blend_scale": 0.0}, "blend_scale is 0.0"),
    ],
)
def test_wrong_options_are_named(
    options: TrainOptions, bi_encoder: BiEncoder, change: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        train(replace(options, **change), embedder=bi_encoder)  # type: ignore[arg-type]


def test_a_teacher_that_is_a_blend_teaches_its_blended_logit(
    options: TrainOptions, bi_encoder: BiEncoder, embedded: Reranker
) -> None:
    train(replace(options, teacher="embedded", epochs=0.1), embedder=bi_encoder)
    training_list = next(read_lists(options.output / "lists.jsonl"))
    scores = embedded.score_pairs(training_list.pairs)
    logits = [logit_of(score) for score in scores]
    np.testing.assert_allclose(training_list.teacher, logits, rtol=0, atol=0.02)


def test_options_that_failed_before_mining_do_not_claim_the_folder(
    options: TrainOptions, bi_encoder: BiEncoder
) -> None:
    with pytest.raises(ModelNotFoundError):
        train(replace(options, base="nobody/has-this"), embedder=bi_encoder)
    assert train(replace(options, epochs=0.1), embedder=bi_encoder).after is not None


def test_the_command_has_an_option_for_every_hyperparameter(here: InProcess, pairs: Path) -> None:
    without_option = {
        *("sources", "output", "mining", "pointwise_weight", "show_progress", "trust_remote_code"),
        *("positives", "hard_depth", "medium_depth", "too_similar", "untitled_share"),
        *("easy_margin", "teacher_scale"),
    }
    parameters = inspect.signature(train_command).parameters
    for field in (*fields(TrainOptions), *fields(MiningOptions)):
        if field.name not in without_option:
            # A default that differs from the class is an option that was declared twice.
            assert parameters[field.name].default == field.default, field.name
    status, _, err = here("train", str(pairs), "-o", "unused", "--loss", "hinge")
    assert status == 1
    assert "loss is 'hinge'; it must be one of listwise, lambda, pairwise" in err
