"""The report's figures, drawn from what has been trained so far."""

import json

import numpy as np
import pytest

from hvq_jax.errors import UserError
from studies.report import figures, page
from studies.report.cells import SMALL
from studies.report.figures import FIGURES, Results, average, main
from studies.report.other_sizes import draw_longer_curves_of_projected, draw_losses_of_all_seeds
from studies.results import CURVES
from studies.run_metrics import Stability

PLACE = {"devices": "1 × cpu", "jax": "0.10.2"}


def write_result(cell, results, mse):
    """The files of a cell with two steps and two evaluations."""
    curves = {name: np.array([2.0, 1.0], np.float32) for name in CURVES}
    held_out = {"validation_mse": np.array([0.5, 0.25]), "validation_commitment": np.array([2.0, 1.0])}
    images = np.zeros((2, 8, 8, 1), np.uint8)
    of_images = {"originals": images, "reconstructions": images + np.uint8(9)} if cell.num_images else {}
    steps = {"step": np.array([1, 2]), "validation_step": np.array([1, 2])}
    np.savez(results / f"{cell.name}.npz", **curves, **steps, **held_out, **of_images)
    metrics = {"mse": mse, "psnr": 20.0, "codes_used": 0.5, "perplexity": 32.0, "share_outside": 0.25}
    others = dict.fromkeys(("gain_mean", "gain_std", "radial_share", *Stability.__dataclass_fields__))
    row = {**cell.labels, "seed": cell.seed, **PLACE, **metrics, **others}
    (results / f"{cell.name}.json").write_text(json.dumps(row))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of the study, with two trainings of the small size: `projected` and `frequency`, with one preset."""
    monkeypatch.setattr(figures, "find_folder", lambda _: tmp_path)
    found = Results(*SMALL)
    found.results.mkdir(parents=True)
    for latent, mse in (("projected", 0.5), ("frequency S=412", 0.25)):
        (cell,) = (c for c in found.all_cells if (*c.labels.values(), c.seed) == ("default", latent, 0))
        write_result(cell, found.results, mse)
    return tmp_path


def test_every_figure_is_drawn_from_what_there_is(folder):
    main(["--dim=32", "--epochs=1"])
    drawn = sorted(path.name for path in (folder / "small").glob("figure-*"))
    assert drawn == sorted(f"{name}.{'png' if name in ('figure-2', 'figure-3') else 'svg'}" for name in FIGURES)
    for name in ("figure-2.png", "figure-4.svg"):
        first = (folder / "small" / name).read_bytes()
        main([name.partition(".")[0], "--dim=32", "--epochs=1"])
        assert (folder / "small" / name).read_bytes() == first


def test_curves_and_errors_are_those_of_the_results(folder):
    found = Results(*SMALL)
    panels = {axes.get_title(): axes for axes in FIGURES["figure-1"].draw(found).axes}
    for split, values in (("held out", [0.5, 0.25]), ("training", [2.0, 1.0])):
        (line,) = panels[f"default, {split}: reconstruction"].lines
        assert line.get_ydata().tolist() == values
    assert [text.get_text() for text in panels["reference, held out: quantization"].texts] == ["not trained yet"]
    drawn = FIGURES["figure-4-continuous"].draw(found).axes
    by_count, by_share = (axes for axes in drawn if axes.get_title() == "default")
    assert by_count.lines[0].get_xydata().tolist() == [[412, 0.25]]
    assert by_share.lines[0].get_xydata().tolist() == [[0.25, 0.25]]


def test_the_page_says_what_is_missing(folder):
    tables = page.PAGE.tables()
    lines = {line.split(" | ")[0]: line for line in tables["small/missing"].splitlines()}
    assert lines["| `figure-1`"] == "| `figure-1` | loss terms of `projected` | 2 | 1 | 1, 0, 0 |"
    assert lines["| `figure-4-continuous`"].endswith("| 96 | 1 | 1, 0, 0 |")
    assert tables["full/trained"] == "No cell has been trained at this size yet.\n"
    row = "| `default` | frequency S=412 | 1 | 1 × cpu | 0.10.2 | 245 | 25 | 0.25 |  | 50 |"
    assert row in tables["small/trained"].splitlines()


def test_three_seeds_are_compared_with_vq_seed_by_seed(folder):
    found = Results(*SMALL)
    errors = {"vq": (0.5, 0.6, 0.7), "projected": (0.4, 0.5, 0.6), "combined S=312": (0.4, 0.8, 0.7)}
    for latent, of_seeds in errors.items():
        for seed, mse in enumerate(of_seeds):
            (cell,) = (c for c in found.all_cells if (*c.labels.values(), c.seed) == ("default", latent, seed))
            write_result(cell, found.results, mse)
    numbers, text = page.PAGE.numbers(), page.PAGE.tables()["small/trained"]
    assert numbers["small/default/projected/minus vq"] == pytest.approx(-0.1)
    assert numbers["small/default/projected/minus vq/interval"] == pytest.approx(0, abs=1e-9)
    # Student's t with two degrees of freedom: 4.303 · 0.1528 / √3.
    assert numbers["small/default/combined S=312/minus vq/interval"] == pytest.approx(0.3795, abs=1e-4)
    assert "| −0.10000 ± 0.00000 |" in text
    assert "| +0.03333 ± 0.37946 |" in text
    assert "small/default/vq/minus vq" not in numbers
    assert "small/default/frequency S=412/minus vq" not in numbers  # one seed


def test_nothing_is_drawn_from_nothing(folder):
    with pytest.raises(UserError, match="no results; train the cells"):
        main(["figure-1"])
    with pytest.raises(SystemExit):
        main(["figure-6"])


def test_devices_are_not_mixed_in_a_figure(folder):
    found = Results(*SMALL)
    file = found.results / f"{found.kept[0].name}.json"
    file.write_text(file.read_text().replace("1 \\u00d7 cpu", "1 \\u00d7 H200"))
    main(["figure-2", "--dim=32", "--epochs=1"])  # shows one of the two
    with pytest.raises(UserError, match="different devices or versions of JAX cannot be compared"):
        main(["figure-5", "--dim=32", "--epochs=1"])


def test_averaged_curves_keep_the_mean():
    steps = np.arange(1.0, 601)
    few, means = average(steps, steps**2)
    assert (len(few), means.mean()) == (60, pytest.approx((steps**2).mean()))
    assert few[:2].tolist() == [5.5, 15.5]
    np.testing.assert_array_equal(average(steps[:7], steps[:7]), [steps[:7], steps[:7]])


def test_the_trainings_of_other_studies_are_found():
    assert [len(axes.lines) for axes in draw_longer_curves_of_projected().axes] == [1, 1, 1, 1]
    (axes,) = draw_losses_of_all_seeds().axes
    assert len(axes.lines) == 12
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["vq", "projected", "frequency", "combined"]
