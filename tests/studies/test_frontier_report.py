"""What is shown of the frontier's results, on results that are made up."""

import json
import math

import numpy as np
import pytest

from hvq_jax.files import write_arrays
from studies.frontier import plots
from studies.frontier.cells import trainings
from studies.frontier.curves import by_curve, comparable, compare, read_all
from studies.frontier.report import Study
from studies.frontier.results import find_point, find_training

SEEDS = (0, 1, 2)
PLACE = {"devices": "1 × cpu", "jax": "0", "commit": "0"}
GAINS = {"length_mean": 1.0, "length_spread": 0.2, "spread_within_codes": 0.1, "radial_share": 0.03}


def quality(mse):
    return {"mse": mse, "psnr": -10 * math.log10(mse / 4), "ssim": 0.9}


def result(training, point, bits, mse):
    positions = [[bits / 49] * 7] * 7
    return {
        "curve": point.curve,
        "value": point.value,
        "training": training.name,
        "seed": training.cell.seed,
        "num_images": 8,
        "as_trained": quality(1.1 * mse),
        "fine_tuned": quality(mse),
        "prior_bits": {"codes": 0.9 * bits, "continuous": 0.1 * bits},
        "coded_bits": bits,
        "static_bits": {"codes": 2 * bits, "continuous": 0.0},
        "bits_by_position": {"codes": positions, "continuous": [[0.0] * 7] * 7},
        **({"codes_first_bits": {"continuous": 0.05 * bits}} if point.codes_first else {}),
        "prior_parameters": 100,
        "cpu_seconds": 60.0,
        **PLACE,
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """`vq` and `projected` with every seed; the latter takes 20 % more bits, and with seed 2 30 %. One plain training.

    The anchor's K = 4096 is there for one seed only.
    """
    folder = tmp_path_factory.mktemp("results")
    for training in trainings():
        for number, point in enumerate(training.points):
            latent, sizes = training.cell.labels["latent"], training.cell.labels["sizes"]
            if latent == "vq" and (sizes in ("K=64", "K=128", "K=256") or training.name == "small-vq-K_4096-seed_1"):
                codes = int(sizes.removeprefix("K="))
                bits, mse = 25 * math.log2(codes), 4 / codes
            elif latent == "projected" and sizes == "K=128" and point.value in ("G=1", "G=2", "G=4", "G=8"):
                place = 6.1 + math.log2(int(point.value.removeprefix("G="))) / 2
                bits, mse = (1.3 if training.cell.seed == 2 else 1.2) * 25 * place, 4 / 2**place
            elif latent == "autoencoder":
                bits, mse = 1000.0 * (number + 1), 0.004 / (number + 1)
            else:
                continue
            find_point(training, point, folder).write_text(json.dumps(result(training, point, bits, mse)))
            about = {**training.cell.labels, "seed": training.cell.seed, "num_images": 8, **quality(0.9 * mse)}
            about |= {"perplexity": 50.0, "codes_used": 1.0, "share_outside": 0.0, "gain_mean": 1.0, "gain_std": 0.1}
            about |= {"options": [], "cpu_seconds": 60.0, **PLACE, **(GAINS if latent == "projected" else {})}
            find_training(training, folder).write_text(json.dumps(about))
            if training.cell.seed == 0 and latent in ("vq", "projected"):
                images = np.zeros((8, 28, 28, 1), np.uint8)
                bits_of_each = np.full((8, 7, 7), bits / 49, np.float32)
                arrays = {"originals": images, "decoded": images, "codes": bits_of_each, "continuous": 0 * bits_of_each}
                write_arrays(find_point(training, point, folder, ".npz"), arrays)
    return folder


def test_a_curve_is_compared_seed_by_seed_on_the_points_that_all_seeds_have(results):
    made = read_all(trainings(), results)
    anchor = comparable(by_curve(made)["vq"])
    assert list(anchor) == list(SEEDS)
    for seed in SEEDS:
        assert [each.point.value for each in anchor[seed]] == ["K=64", "K=128", "K=256"]
    found = compare(made, "projected", "coded", "fine-tuned")
    assert found.by_seed[0].change == pytest.approx(0.2, abs=0.01)
    assert found.by_seed[2].change == pytest.approx(0.3, abs=0.01)
    assert found.change.mean == pytest.approx(0.7 / 3, abs=0.01)
    # Student's t with two degrees of freedom: 4.303 · 0.0577 / √3.
    assert found.change.half_width == pytest.approx(0.143, abs=0.003)
    assert found.low == pytest.approx(10 * math.log10(2**6.1))
    assert found.high == pytest.approx(10 * math.log10(2**7.6))
    assert compare(made, "residual", "coded", "fine-tuned") is None
    assert compare(made, "autoencoder", "coded", "fine-tuned") is None  # of other qualities


def test_results_of_different_devices_are_not_compared(results, tmp_path):
    made = read_all(trainings(), results)
    for each in made:
        if each.point.curve == "projected" and each.seed == 1:
            each.result["devices"] = "1 × gpu"
    with pytest.raises(Exception, match="different devices"):
        compare(made, "projected", "coded", "fine-tuned")


def test_tables_and_numbers_follow_from_the_results(results):
    study = Study(results=results)
    tables, numbers = study.tables(), study.numbers()
    assert numbers["made/points"] == 9 + 1 + 12 + 5
    assert numbers["made/trainings"] == 9 + 1 + 1  # no `projected` has all of its points
    assert numbers["planned/points"] > numbers["planned/trainings"] > 50
    assert numbers["vq/K=128/mse"] == pytest.approx(4 / 128)
    assert numbers["projected/bd/coded fine-tuned/seeds"] == 3
    assert numbers["projected, K=128/radial_share"] == 0.03
    assert "| projected | 3 | +23.3 ± 14.3 % |" in tables["bd_rates"]
    assert "| autoencoder |" not in tables["bd_rates"]
    # K·G = 256 of both: the bits of `projected` with G = 2 beside those of `vq` with K = 256.
    assert "| 128 × 2 | 3 | 204 ± 8.2 | 200 ± 0 |" in tables["controls"]
    assert "| projected | G=8 | 3 |" in tables["orders"]
    assert (
        "| vq | K=64; K=128; K=256; K=512; K=1024; K=2048; K=4096; K=8192 | 3 | 10 of 24 | 10 of 24 |"
        in (tables["progress"])
    )


def test_seeds_that_are_compared_in_different_ranges_have_no_common_one(results):
    study = Study(results=results)
    for each in study.made:
        if each.seed == 1:  # four times the quality
            each.result["fine_tuned"]["mse"] /= 4
            each.result["as_trained"]["mse"] /= 4
    assert "| another range per seed |" in study.bd_rates()


def test_nats_of_both_orders_share_the_prior_over_codes_alone(results):
    study = Study(results=results)
    (each,) = (made for made in study.made if made.point.codes_first and made.seed == 0)
    (alone,) = (made for made in study.made if made.training == each.training and made.point.value == "G=1")
    bits = each.result["coded_bits"]
    expected = [0.9 * bits, 0.1 * bits, bits, 0.9 * alone.result["coded_bits"], 0.05 * bits]
    expected.append(sum(expected[3:]))
    assert study._nats_of_orders(each) == pytest.approx([math.log(2) * x for x in expected])


def test_figures_are_drawn_from_results(results, tmp_path):
    study = Study(results=results)
    codecs = tmp_path / "codecs.json"
    points = [{"bits_per_image": 100.0, "mse": 0.03}, {"bits_per_image": 200.0, "mse": 0.02}]
    codecs.write_text(json.dumps({"curves": {"PCA": {"points": points}}}))
    for path in (codecs, tmp_path / "missing.json"):
        plots.plot_frontier(study.made, study.trainings, results, tmp_path / f"{path.stem}.png", codecs=path)
    drawn = [(tmp_path / f"{name}.png").read_bytes() for name in ("codecs", "missing")]
    assert drawn[0] != drawn[1]
    assert plots.plot_bits(study.made, [("vq", "K=128"), ("projected", "G=8")], results, tmp_path / "bits.png")
    assert not plots.plot_bits(study.made, [("vq", "K=8192")], results, tmp_path / "none.png")
    assert (tmp_path / "bits.png").read_bytes()[1:4] == b"PNG"
