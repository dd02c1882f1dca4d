"""Samples are judged as the table says."""

import json

import jax
import numpy as np
import pytest

from hvq_jax.data.datasets import load_dataset
from hvq_jax.errors import UserError
from hvq_jax.runs.trained import TrainedRun
from studies.samples import evaluate, report, sweep
from studies.samples.cells import cells


def test_a_run_is_judged_and_shown(trained_run, data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "COUNT", 100)
    monkeypatch.setattr(evaluate, "_EPOCHS", 2)
    run, dataset = TrainedRun.load(trained_run), load_dataset("fashion_mnist_mini", data_dir=data_dir)
    judge, about = evaluate.make_judge(dataset, tmp_path / "classifier.npz")
    assert about["test_accuracy"] > 0.6
    found = evaluate.judged(run, dataset, judge)
    # A prior of four steps draws nothing like an image.
    assert found["samples"]["frechet_distance"] > 2 * about["frechet_distance"]
    assert found["samples"] != found["mean_gains"]
    assert found["transmitted"] != found["transmitted_mean_gains"]
    assert found["prior"]["nats_per_latent"] > found["histogram_nats"] > 0

    monkeypatch.setattr(evaluate, "find_results", lambda _: tmp_path)
    monkeypatch.setattr(report, "find_results", lambda _: tmp_path)
    monkeypatch.setattr(report, "find_folder", lambda _: tmp_path)
    cell = cells()[1]
    evaluate.write(f"judged-{cell.name}", found)
    report.redraw()
    line = (tmp_path / "table.md").read_text().splitlines()[2]
    place, nats = f"{found['devices']} | {jax.__version__}", found["prior"]["nats_of_codes"]
    assert line.startswith(f"| projected | default | pixelcnn | 1 | {place} | {nats:.3g} |")
    assert json.loads((tmp_path / f"judged-{cell.name}.json").read_text()) == found

    monkeypatch.setattr(sweep, "find_results", lambda _: tmp_path)
    monkeypatch.setattr(sweep, "_OF_CODES", ({}, {"temperature": 0.0}))
    monkeypatch.setattr(sweep, "_OF_CONTINUOUS", ({"continuous_temperature": 0.0},))
    plain, *others = sweep.swept(run, judge, "a")
    assert sweep.swept(run, None, "a") == [plain, *others]  # nothing is left to be judged
    assert plain == {"options": {}, **found["samples"]}
    assert all(point["frechet_distance"] != plain["frechet_distance"] for point in others)
    report.redraw()
    *_, last = (tmp_path / "table.md").read_text().splitlines()
    distance = f"{others[-1]['frechet_distance']:.2f}"
    assert last.startswith(f"| a | {found['devices']} | {jax.__version__} | continuous_temperature 0 | {distance} |")


def test_mean_gains_are_those_of_one_bin(trained_run):
    run = TrainedRun.load(trained_run)
    tables = evaluate.mean_gains(run)
    assert tables.centroids.shape[-1] == 1
    drawn = next(run.sample(np.zeros(3, np.int32), seed=0))
    images = evaluate.with_tables(run, tables, drawn.indices)
    assert images.shape == drawn.images.shape
    assert (images != drawn.images).any()


def test_a_kept_classifier_judges_alike(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "COUNT", 50)
    monkeypatch.setattr(evaluate, "_EPOCHS", 1)
    dataset, kept = load_dataset("fashion_mnist_mini", data_dir=data_dir), tmp_path / "classifier.npz"
    first, about = evaluate.make_judge(dataset, kept)
    monkeypatch.delattr(evaluate, "train_classifier")
    again, about_again = evaluate.make_judge(dataset, kept)
    np.testing.assert_array_equal(first.real, again.real)
    assert about == about_again
    assert list(tmp_path.iterdir()) == [kept]
    arrays = dict(np.load(kept))
    name = max(arrays, key=lambda name: arrays[name].size)
    for wrong in (arrays[name][:-1], arrays[name] * np.nan, arrays[name].astype(int)):
        np.savez(kept, **{**arrays, name: wrong})
        with pytest.raises(UserError, match=f"classifier.npz cannot be read .{name} .*delete it, and evaluate again"):
            evaluate.make_judge(dataset, kept)


def test_the_table_has_means_over_trainings_and_the_difference_that_drawn_lengths_make(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate, "find_results", lambda _: tmp_path)
    monkeypatch.setattr(report, "find_results", lambda _: tmp_path)
    group = [cell for cell in cells() if cell.labels == cells()[1].labels]
    assert len(group) == 3
    for cell, drawn, mean in zip(group, (8.0, 9.0, 10.0), (8.5, 9.25, 10.75), strict=True):
        samples = {"frechet_distance": drawn, "class_accuracy": 0.8, "precision": 0.7, "recall": 0.6}
        result = {
            "devices": "1 × cpu",
            "jax": "0.10.2",
            "prior": {"nats_per_latent": 100, "nats_of_codes": 75.0, "nats_of_continuous": 25.0, "bits_per_pixel": 0.5},
            "histogram_nats": 100.0,
            "reconstructions": 1.0,
            "transmitted": 2.0,
            "transmitted_mean_gains": 3.0,
            "samples": samples,
            "mean_gains": {**samples, "frechet_distance": mean},
        }
        evaluate.write(f"judged-{cell.name}", result)
    shown = dict(
        zip(report._HEAD, report.row(group[0].labels, [report.judgement(cell) for cell in group]), strict=True)
    )
    assert shown["seeds"] == "3"
    assert shown["below it, %"] == "25 ± 0"
    assert shown["Fréchet distance"] == "9 ± 1"
    assert shown["drawn gains are nearer than mean gains by"] == "0.5 ± 0.25"
    assert shown["class accuracy, %"] == "80 ± 0"
    assert [shown[key] for key in ("of what is transmitted", "with mean gains", "of reconstructions")] == [
        "2 ± 0",
        "3 ± 0",
        "1 ± 0",
    ]
