import numpy as np
import pytest

from benchmarks import quantizers
from benchmarks.workloads.quantizer_example import Subject
from hvq_jax.command import exit_status
from hvq_jax.files import write_json

IMAGES = np.random.default_rng(0).uniform(-1, 1, (8, 28, 28, 1)).astype(np.float32)


def convolutions(dim):
    shapes = [(3, 3, 1, 16), (3, 3, 16, dim), (3, 3, dim, 16), (3, 3, 16, 1)]
    rng = np.random.default_rng(1)
    return [(0.1 * rng.normal(size=s).astype(np.float32), np.zeros(s[-1], np.float32)) for s in shapes]


def test_the_example_with_our_quantizer_learns_from_its_batches():
    subject = Subject(
        0, convolutions(4), dim=4, num_codes=16, learning_rate=1e-2, loss_weight=1.0, mode="vq", estimator="rotation"
    )
    before = np.abs(subject.reconstruct(IMAGES)[0] - IMAGES).mean()
    for _ in range(30):
        subject.step(IMAGES)
    decoded, indices = subject.reconstruct(IMAGES)
    assert np.abs(decoded - IMAGES).mean() < before
    assert indices.shape == (8, 7, 7)
    assert len(np.unique(indices)) > 1


def test_an_epoch_has_every_image_once():
    numbers = np.arange(2 * quantizers.BATCH)
    stream = quantizers.batches(numbers, seed=0)
    first, second = np.sort(np.concatenate([next(stream), next(stream)])), np.concatenate([next(stream), next(stream)])
    np.testing.assert_array_equal(first, numbers)
    np.testing.assert_array_equal(np.sort(second), numbers)


@pytest.mark.parametrize(
    ("argument", "message"),
    [("--steps=0", "--steps=0: must be at least 1"), ("--seeds=0", "--seeds=0: must be at least 1")],
)
def test_bad_input_gets_one_line(argument, message, capsys):
    assert exit_status(lambda: quantizers.main([argument])) == 1
    assert capsys.readouterr() == ("", f"error: {message}\n")


def test_results_of_another_training_are_not_continued(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quantizers.importlib.util, "find_spec", lambda name: object())
    path = tmp_path / "a.json"
    write_json(path, {"versions": {}, "conditions": "", "steps": 3, "images": 9000, "rows": []})
    assert exit_status(lambda: quantizers.main([f"--json={path}"])) == 1
    assert "has 3 steps on 9000 images: choose another file" in capsys.readouterr().err
