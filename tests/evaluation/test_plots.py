"""Plots: what is drawn where, and what happens to the file if something fails."""

import errno
import os

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from hvq_jax.errors import UserError
from hvq_jax.evaluation import plots
from hvq_jax.evaluation.curves import PANELS, find_curves

RED, GREEN, BLUE = [255, 0, 0], [0, 255, 0], [0, 0, 255]
WHITE = [255, 255, 255]


def plain(*colors: list[int], side: int = 32) -> np.ndarray:
    """Return one image per colour: uint8 [N, side, side, 3]."""
    return np.broadcast_to(np.array(colors, np.uint8)[:, None, None], (len(colors), side, side, 3)).copy()


def read(path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def block(plot: np.ndarray, color: list[int]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the one solid rectangle of `color`."""
    ys, xs = np.nonzero((plot == color).all(-1))
    top, left, height, width = ys.min(), xs.min(), np.ptp(ys) + 1, np.ptp(xs) + 1
    assert len(ys) == height * width, "not a solid rectangle"
    return int(top), int(left), int(height), int(width)


def record(stage: str, split: str, step: int, **metrics: float) -> dict:
    return {"stage": stage, "split": split, "step": step, **metrics}


def test_images_are_enlarged_pixel_for_pixel(tmp_path):
    image = np.random.default_rng(0).integers(0, 200, (1, 28, 20, 3)).astype(np.uint8)
    plots.save_grid(tmp_path / "grid.png", image)
    plot = read(tmp_path / "grid.png")
    inside = (plot != WHITE).any(-1)
    rows, columns = inside.any(1), inside.any(0)
    np.testing.assert_array_equal(plot[rows][:, columns], image[0].repeat(3, axis=0).repeat(3, axis=1))


def test_large_images_keep_their_pixels(tmp_path):
    plots.save_grid(tmp_path / "grid.png", plain(RED, side=200))
    assert block(read(tmp_path / "grid.png"), RED)[2:] == (200, 200)


@pytest.mark.parametrize("channels", [1, 3])
def test_floats_are_drawn_as_the_bytes_they_stand_for(tmp_path, channels):
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(channels, axis=-1)
    plots.save_grid(tmp_path / "bytes.png", values)
    plots.save_grid(tmp_path / "floats.png", values.astype(np.float32) / 127.5 - 1)
    np.testing.assert_array_equal(read(tmp_path / "bytes.png"), read(tmp_path / "floats.png"))


def test_a_grid_is_square_and_in_row_order(tmp_path):
    plots.save_grid(tmp_path / "grid.png", plain(RED, GREEN, BLUE, [9, 9, 9]))
    plot = read(tmp_path / "grid.png")
    red, green, blue = (block(plot, color) for color in (RED, GREEN, BLUE))
    assert red[:2] < green[:2] < blue[:2]
    assert red[0] == green[0]
    assert red[1] == blue[1]
    assert plot.shape[0] == plot.shape[1]


def test_the_last_row_of_a_grid_is_filled_with_white(tmp_path):
    plots.save_grid(tmp_path / "grid.png", plain(RED, RED, RED))
    plot = read(tmp_path / "grid.png")
    half = plot.shape[0] // 2
    assert (plot[half + 2 :, half + 2 :] == 255).all()
    assert (plot[half + 10, half // 2] == RED).all()


def test_originals_stand_over_their_reconstructions(tmp_path):
    plots.save_reconstructions(tmp_path / "r.png", plain(RED), plain(BLUE), title="pair")
    plot = read(tmp_path / "r.png")
    red, blue = block(plot, RED), block(plot, BLUE)
    assert red[1:] == blue[1:]
    assert red[0] < blue[0]
    # The error is below: two thirds of the range, which is drawn black.
    error = plot[blue[0] + blue[2] + 10, blue[1] + 5]
    assert error.tolist() == plots.error_map(plain(RED), plain(BLUE))[0, 0, 0].tolist() == [0, 0, 3]
    # The names are to the left of the images.
    assert (plot[red[0] : red[0] + red[2], : red[1]] < 128).any()
    assert (plot[blue[0] : blue[0] + blue[2], : blue[1]] < 128).any()


def test_many_reconstructions_go_in_several_pairs_of_rows(tmp_path):
    originals, reconstructions = plain(*[RED] * 40), plain(*[BLUE] * 40)
    plots.save_reconstructions(tmp_path / "r.png", originals, reconstructions, title="many")
    plot = read(tmp_path / "r.png")
    assert plot.shape[1] < 1800
    column = plot[:, (plot == RED).all(-1).any(0).argmax()]
    colors = [tuple(c) for c in column if tuple(c) in (tuple(RED), tuple(BLUE))]
    bands = [c for i, c in enumerate(colors) if i == 0 or colors[i - 1] != c]
    assert bands == [tuple(RED), tuple(BLUE)] * (len(bands) // 2)
    assert len(bands) > 2
    assert (plot == RED).all(-1).sum() == 40 * 96 * 96


def test_errors_of_colour_and_grey_images_and_of_floats_have_one_scale():
    """Darker with the mean of the absolute differences of the channels, up to the largest error that is told apart."""
    original = np.full((1, 1, 5, 1), 128, np.uint8)
    differences = np.array([0, 10, -10, 64, 100])
    grey = (original + differences[:, None]).astype(np.uint8)
    colors = plots.error_map(original, grey)[0, 0].astype(int)
    assert colors.shape == (5, 3)
    assert colors[1].tolist() == colors[2].tolist()
    assert colors[0].sum() > colors[1].sum() > colors[3].sum()
    assert colors[3].tolist() == colors[4].tolist()  # beyond a quarter of the range
    of_one_channel = np.repeat(original, 3, axis=-1)
    of_one_channel[..., 0] += 30  # a third of which is 10
    np.testing.assert_array_equal(plots.error_map(np.repeat(original, 3, -1), of_one_channel)[0, 0, 0], colors[1])
    floats = (images / 127.5 - 1 for images in (original.astype(np.float32), grey.astype(np.float32)))
    np.testing.assert_array_equal(plots.error_map(*floats)[0, 0], colors)


def test_samples_are_one_row_per_class(tmp_path):
    images = np.stack([plain(RED, RED), plain(GREEN, GREEN), plain(BLUE, BLUE)])
    names = ["a", "a rather long name of a class", ""]
    plots.save_samples(tmp_path / "s.png", images, names, title="Samples")
    plot = read(tmp_path / "s.png")
    is_color = [(plot == color).all(-1) for color in (RED, GREEN, BLUE)]
    tops = [mask.any(1).argmax() for mask in is_color]
    assert tops == sorted(tops)
    assert len({mask.any(0).argmax() for mask in is_color}) == 1


@pytest.mark.parametrize("kept", [0.0, 0.25, 1.0])
def test_what_was_given_of_an_image_is_marked_beside_it(tmp_path, kept):
    images = np.stack([plain(RED, GREEN, GREEN)] * 2)
    names = ["original", "2 draws"]
    plots.save_samples(tmp_path / "s.png", images, ["a", "b"], title="t", column_names=names, kept=kept)
    plot = read(tmp_path / "s.png")
    marked = (plot == plots._KEPT_COLOR).all(-1)
    assert marked.any(0).sum() == (4 if kept else 0)  # two pixels beside each draw, none beside the original
    for column in np.flatnonzero(marked.any(0)):
        assert marked[:, column].sum() == 2 * round(kept * 96)
        assert plot[marked[:, column].argmax(), column + 3].tolist() == list(GREEN)
    first_text = (plot < 128).all(-1).any(1).argmax()
    assert (plot == RED).all(-1).any(1).argmax() > first_text


@pytest.mark.parametrize("text", ["W" * 60, "cost: $5 and $6_x", "Ångström, ﬁne"])
def test_texts_are_never_clipped(tmp_path, text):
    tile = plain(RED, RED)
    plots.save_grid(tmp_path / "title.png", tile, title=text)
    plots.save_grid(tmp_path / "labels.png", tile, labels=["", text])
    plots.save_samples(tmp_path / "names.png", tile[:, None], ["", text], title="")
    plots.save_samples(tmp_path / "column.png", tile[None], [""], title="", column_names=[text, ""])
    for name in ("title", "labels", "names", "column"):
        plot = read(tmp_path / f"{name}.png")
        edge = np.ones(plot.shape[:2], bool)
        edge[4:-4, 4:-4] = False
        assert (plot[edge] == 255).all(), name
        # All of the text was drawn, and outside the images, which stay whole.
        assert (plot == RED).all(-1).sum() == 2 * 96 * 96
        assert (plot < 128).all(-1).any()


def test_a_label_widens_the_column_it_needs(tmp_path):
    plots.save_grid(tmp_path / "short.png", plain(RED, RED), labels=["a", "b"])
    plots.save_grid(tmp_path / "long.png", plain(RED, RED), labels=["a", "b" * 40])
    assert read(tmp_path / "long.png").shape[1] > read(tmp_path / "short.png").shape[1] + 200


@pytest.mark.parametrize(
    "shape",
    [(32, 32, 3), (4, 32, 32), (4, 32, 32, 2), (0, 32, 32, 3), (2, 2, 32, 32, 1)],
)
def test_wrong_shapes_are_refused(tmp_path, shape):
    with pytest.raises(UserError, match=r"\[N, H, W, C\]"):
        plots.save_grid(tmp_path / "g.png", np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match=r"\[N, H, W, C\]"):
        plots.save_reconstructions(tmp_path / "r.png", *[np.zeros(shape)] * 2, title="")
    assert not list(tmp_path.iterdir())


def test_numbers_that_do_not_match_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be compared with"):
        plots.save_reconstructions(tmp_path / "r.png", plain(RED, RED), plain(RED), title="")
    with pytest.raises(UserError, match="2 rows of images need as many names, not 1"):
        plots.save_samples(tmp_path / "s.png", np.stack([plain(RED)] * 2), ["a"], title="")
    with pytest.raises(UserError, match="2 images need as many labels, not 3"):
        plots.save_grid(tmp_path / "g.png", plain(RED, RED), labels=["a", "b", "c"])
    with pytest.raises(UserError, match="rows, columns"):
        plots.save_samples(tmp_path / "s.png", plain(RED), ["a"], title="")
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_refused_and_not_made(tmp_path):
    with pytest.raises(UserError, match="missing does not exist"):
        plots.save_grid(tmp_path / "missing" / "g.png", plain(RED))
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_plot_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "g.png"
    plots.save_grid(path, plain(RED))
    before = path.read_bytes()

    def disk_full(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("hvq_jax.files.os.replace", disk_full)
    with pytest.raises(UserError, match=r"cannot write .*g\.png: No space left"):
        plots.save_grid(path, plain(BLUE))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_target_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*folder: ") as error:
        plots.save_grid(tmp_path / "folder", plain(RED))
    assert "\n" not in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_loss_curves_have_a_panel_for_each_kind_of_metric_that_was_logged(tmp_path):
    losses = [record("autoencoder", "train", step, loss=1 / step) for step in (1, 2, 3)]
    use = [record("autoencoder", "validation", 3, perplexity=20.0, loss=0.5)]
    prior = [record("prior", "train", step, nats_per_latent=300.0 / step) for step in range(1, 3000)]
    widths = []
    for name, records in (("1", losses), ("2", losses + use), ("3", losses + use + prior)):
        plots.save_loss_curves(tmp_path / f"{name}.png", records)
        plot = read(tmp_path / f"{name}.png")
        assert (plot[:, :3] == 255).all()
        assert (plot[:, -3:] == 255).all()
        widths.append(plot.shape[1])
    assert widths == [widths[0], 2 * widths[0], 3 * widths[0]]


def plot_of(tmp_path, records: list[dict]) -> np.ndarray:
    plots.save_loss_curves(tmp_path / "curves.png", records)
    return read(tmp_path / "curves.png")


def test_loss_curves_leave_out_what_has_no_place_on_the_axis(tmp_path):
    finite = [record("autoencoder", "train", step, loss=1 / step) for step in (1, 2, 3)]
    spoilt = [
        *(dict(row, projection=0.0, codebook=float("nan")) for row in finite),
        record("autoencoder", "validation", 4, loss=float("inf")),
    ]
    np.testing.assert_array_equal(plot_of(tmp_path, finite), plot_of(tmp_path, spoilt))


def test_quantities_of_the_same_numbers_are_one_curve_that_is_named_after_both():
    rows = [record("autoencoder", "train", step, reconstruction=1.0, codebook=2 / step) for step in (1, 2, 3)]
    panel = PANELS[0]
    for commitment, names in (
        ({"commitment": 3.0}, ["reconstruction", "codebook", "commitment"]),
        ({}, ["reconstruction", "codebook = commitment"]),
    ):
        curves = find_curves(panel, [{**row, "commitment": row["codebook"], **commitment} for row in rows])
        axes = Figure().subplots()
        plots._draw_panel(axes, panel, curves)
        assert len(axes.lines) == len(names)
        assert [text.get_text() for text in axes.get_legend().get_texts()] == [*names, "train"]


def test_of_two_records_of_a_step_the_later_counts_in_any_order(tmp_path):
    rows = [record("prior", "train", step, nats_per_latent=100.0 - step) for step in (1, 2, 3)]
    repeated = [record("prior", "train", 2, nats_per_latent=500.0), rows[2], rows[0], rows[1]]
    np.testing.assert_array_equal(plot_of(tmp_path, rows), plot_of(tmp_path, repeated))


def test_train_and_validation_are_told_apart(tmp_path):
    train = plot_of(tmp_path, [record("prior", "train", 1, nats_per_latent=9.0)])
    validation = plot_of(tmp_path, [record("prior", "validation", 1, nats_per_latent=9.0)])
    assert (train != validation).any()


def test_no_losses_to_draw_are_refused(tmp_path):
    for records in ([], [record("autoencoder", "train", 1, gain=1.0)]):
        with pytest.raises(UserError, match="no losses to draw"):
            plots.save_loss_curves(tmp_path / "curves.png", records)
    assert not list(tmp_path.iterdir())
