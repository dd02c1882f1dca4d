"""Rates are of what was decoded, mosaics come apart as they were made; k-means and PCA by cases done by hand."""

import dataclasses
import io
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import codecs
from benchmarks.measuring import codec_curves, codec_report
from benchmarks.peers import image_codecs
from benchmarks.peers.image_codecs import IMAGE_CODECS, ImageCodec
from benchmarks.peers.patch_codes import PatchCode, from_patches, to_patches
from benchmarks.peers.principal_components import ComponentCode, Components, rounded
from benchmarks.peers.static_coding import decode_symbols, encode_symbols, frequencies
from benchmarks.workloads.mosaics import make_mosaic, split_mosaic
from hvq_jax.command import exit_status
from hvq_jax.data.datasets import load_dataset
from hvq_jax.errors import UserError
from hvq_jax.files import write_json
from hvq_jax.runs.coded_evaluation import evaluate_coded
from tests.conftest import NUM_IMAGES

pytest.importorskip("constriction", reason="compression is optional")

STORED = sorted((Path(__file__).parents[2] / "docs" / "performance").glob("codecs_*.json"))
STREAM_END = 64  # bits that the end of a stream may take
LOSSLESS = ImageCodec("PNG", "compress_level", (1, 9), {"optimize": False}, feature="zlib")


def noise(count, side=8, channels=1):
    return np.random.default_rng(0).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


def smooth(count, channels):
    """Images of a gradient each, which every lossy codec gets about right."""
    ramp = np.linspace(20, 220, 16)
    planes = np.stack([np.add.outer(k * ramp, (8 - k) * ramp) / 8 for k in range(channels)], axis=-1) / 2 + 30
    return np.stack([np.rint(planes * (0.5 + 0.5 * i / count)).astype(np.uint8) for i in range(count)])


@pytest.mark.parametrize(("count", "columns"), [(1, 4), (4, 4), (7, 3), (12, 5)])
def test_a_mosaic_comes_apart_as_it_was_made(count, columns):
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 6, 3), dtype=np.uint8)
    mosaic = make_mosaic(images, columns)
    assert mosaic.shape == (4 * math.ceil(count / columns), 6 * min(count, columns), 3)
    np.testing.assert_array_equal(split_mosaic(mosaic, count, 4, 6), images)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("per_file", [1, 5])
def test_a_lossless_format_has_the_bits_of_its_files_and_no_error(channels, per_file):
    images = noise(12, channels=channels)
    curve = codec_curves.image_codec_curve(LOSSLESS, images, per_file)

    def size(part, level):
        file = io.BytesIO()
        picture = make_mosaic(part)
        Image.fromarray(picture[..., 0] if channels == 1 else picture).save(file, "PNG", compress_level=level)
        return len(file.getvalue())

    for point in curve["points"]:
        level = int(point["setting"].removeprefix("compress_level="))
        sizes = [size(images[start : start + per_file], level) for start in range(0, 12, per_file)]
        assert (point["bits_per_image"], point["images"]) == (8 * sum(sizes) / 12, 12)
        assert (point["mse"], point["psnr"], point["ssim"]) == (pytest.approx(0, abs=1e-12), 100, pytest.approx(1))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", IMAGE_CODECS)
def test_a_codec_of_images_gets_better_with_its_bits(name, channels):
    codec = IMAGE_CODECS[name]
    assert not codec.missing()
    images = smooth(4, channels)
    few = dataclasses.replace(codec, values=(codec.values[0], codec.values[-1]))
    for per_file in (1, 4):
        low, high = codec_curves.image_codec_curve(few, images, per_file)["points"]
        assert low["bits_per_image"] < high["bits_per_image"]
        assert high["mse"] < min(low["mse"] + 1e-6, 2e-3)


def test_errors_are_on_the_scale_of_the_summary():
    images = np.zeros((3, 8, 8, 1), np.uint8)
    point = codec_curves.measure("one", images, [b"12", b"3"], images + np.uint8(51))  # 0.2 of [0, 1], 0.4 of [-1, 1]
    assert point["bits_per_image"] == 8.0
    assert point["mse"] == pytest.approx(0.16)
    assert point["psnr"] == pytest.approx(-20 * math.log10(0.2), rel=1e-4)


def test_a_mosaic_beyond_the_limits_of_a_format_is_one_line():
    wide = np.zeros((50, 1, 400, 1), np.uint8)  # WebP ends at 16,383
    with pytest.raises(UserError, match=r"^WEBP cannot hold 20000×1 pixels \(.*\): choose fewer --per_mosaic$"):
        codec_curves.image_codec_curve(IMAGE_CODECS["WebP"], wide, 50)


def test_what_was_decoded_must_be_what_was_coded():
    with pytest.raises(ValueError, match=r"^decoded: must be uint8 \(3, 8, 8, 1\), not uint8 \(2, 8, 8, 1\)"):
        codec_curves.measure("one", noise(3), [b""], noise(2))


@pytest.mark.parametrize("skew", [1, 3])
def test_symbols_take_their_information(skew):
    rng = np.random.default_rng(0)
    symbols = np.stack([rng.integers(0, 16, 3000), rng.geometric(0.5, 3000).clip(max=16) - 1], axis=1) // skew
    probabilities = frequencies(symbols, 16)
    data = encode_symbols(symbols, probabilities)
    information = -np.log2(probabilities[[0, 1], symbols]).sum()
    assert information < 8 * len(data) < information + STREAM_END + 1
    np.testing.assert_array_equal(decode_symbols(data, 3000, probabilities), symbols)


def test_frequencies_sum_to_one_and_leave_out_no_symbol():
    probabilities = frequencies(np.array([[0, 2], [0, 2], [1, 2]]), 4)
    np.testing.assert_allclose(probabilities[0], [2.25 / 4, 1.25 / 4, 0.25 / 4, 0.25 / 4])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)


def test_patches_are_those_of_the_image_and_fit_together_again():
    images = noise(2, channels=3)
    patches = to_patches(images)
    np.testing.assert_array_equal(patches[1, 2].reshape(4, 4, 3), images[1, 4:, :4])
    np.testing.assert_array_equal(from_patches(patches, (8, 8, 3)), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_k_means_of_two_kinds_of_patches_takes_a_bit_per_patch(channels):
    kinds = np.random.default_rng(0).integers(0, 2, (800, 4))  # 4 patches of 4×4 in images of 8×8
    patches = np.repeat(255 * kinds[..., None], 16 * channels, axis=-1).astype(np.uint8)
    images = from_patches(patches, (8, 8, channels))
    code = PatchCode.fit(images, 2)
    data = code.encode(images)
    share = kinds.mean(axis=0)
    bits = -800 * (share * np.log2(share) + (1 - share) * np.log2(1 - share)).sum()  # about 3,200
    assert 8 * len(data) == pytest.approx(bits, abs=STREAM_END)
    np.testing.assert_array_equal(code.decode(data, 800), images)


def test_pca_of_two_kinds_of_images_takes_a_bit_per_image():
    levels = np.tile([60, 200], 2000)  # one component: 64 pixels, ±70 from the mean, so ±560
    images = np.broadcast_to(levels[:, None, None, None], (4000, 8, 8, 1)).astype(np.uint8)
    components = Components.fit(images)
    coefficients = components.coefficients(images)
    assert np.abs(coefficients[:, 0]) == pytest.approx(560)
    code = ComponentCode.fit(components, coefficients, (8, 8, 1), step=560)
    data = code.encode(images)
    # Symbols −1, 0, 1 with 2,000, 0 and 2,000 of 4,000 and a third more each; 63 coefficients that are always 0.
    bits = -4000 * math.log2((2000 + 1 / 3) / 4001) - 63 * 4000 * math.log2((4000 + 1 / 3) / 4001)
    assert 8 * len(data) == pytest.approx(bits, abs=STREAM_END)
    np.testing.assert_array_equal(code.decode(data, 4000), images)


def test_coefficients_are_rounded_with_a_wide_zero():
    np.testing.assert_array_equal(rounded(np.array([-2.7, -1.6, 0.6, 0.7, 3.3]), 2.0), [-1, -1, 0, 0, 1])


@pytest.mark.parametrize("channels", [1, 3])
def test_pca_takes_images_beyond_those_it_was_fitted_to(channels):
    images = noise(40, channels=channels)
    components = Components.fit(images // 4)
    np.testing.assert_allclose(components.basis.T @ components.basis, np.eye(64 * channels), atol=1e-5)
    code = ComponentCode.fit(components, components.coefficients(images // 4), images.shape[1:], step=5)
    inside = code.decode(code.encode(images // 4), 40)
    assert np.abs(inside.astype(int) - images // 4).max() < 10
    beyond = code.encode(images)  # coefficients up to four times those that were seen
    assert code.decode(beyond, 40).shape == images.shape


def curve(*points):
    return {
        "settings": "",
        "points": [
            {"setting": "", "images": 1, "bits_per_image": bits, "mse": mse, "psnr": 20.0, "ssim": 0.5}
            for bits, mse in points
        ],
    }


def test_rates_between_points_are_on_the_line_through_their_logarithms():
    line = curve((100.0, 0.04), (400.0, 0.01))
    assert codec_report.bits_at(line, 0.02) == pytest.approx(200)
    assert codec_report.bits_at(line, 0.04) == pytest.approx(100)
    assert codec_report.bits_at(line, 0.041) is codec_report.bits_at(line, 0.009) is None


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_stored_tables_are_those_of_the_stored_results(path):
    report = codec_curves.read_report(path)
    assert path.with_suffix(".md").read_text() == codec_report.tables(report)
    for name, found in report["curves"].items():
        assert found["points"] == codec_curves.by_rate(found["points"]), name


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_the_page_has_the_stored_tables(path):
    report, page = codec_curves.read_report(path), (path.parents[1] / "codecs.md").read_text()
    assert codec_report.rates_table(report) in page
    assert codec_report.runs_table(report) in page or not any(name.startswith("run ") for name in report["curves"])


def test_results_are_kept_and_what_is_missing_is_one_line(tmp_path, data_dir, manual_dir, monkeypatch, capsys):
    monkeypatch.setattr(codec_curves, "STEPS", (200, 400))
    absent = dataclasses.replace(LOSSLESS, plugin=("no_such_module", "no-such-package"))
    monkeypatch.setattr(codecs, "IMAGE_CODECS", {"PNG": LOSSLESS, "other": absent})
    monkeypatch.setattr(codecs, "CODECS", ("PNG", "other", codec_curves.PCA))
    arguments = [f"--data_dir={data_dir}", f"--manual_dir={manual_dir}", f"--out={tmp_path / 'a'}"]
    arguments += ["--images=20", "--single_files=5", "--per_mosaic=8", "--codecs=PNG,other,PCA"]
    assert exit_status(lambda: codecs.main(arguments)) == 0
    printed = capsys.readouterr()
    line = "other: left out: no-such-package is not installed: pip install -r requirements-bench.txt\n"
    assert [each for each in printed.err.splitlines(keepends=True) if "left out" in each] == [line]
    report = codec_curves.read_report(tmp_path / "a.json")
    assert list(report["curves"]) == ["PNG, mosaics", "PNG, single files", "PCA"]
    counts = [point["images"] for curve in report["curves"].values() for point in curve["points"]]
    assert counts == [20, 20, 5, 5, 20, 20]
    assert printed.out == (tmp_path / "a.md").read_text()
    assert (tmp_path / "a.png").stat().st_size > 10_000

    monkeypatch.setattr(codecs, "image_codec_curve", lambda *given: pytest.fail("measured again"))
    assert exit_status(lambda: codecs.main(arguments)) == 0
    assert codec_curves.read_report(tmp_path / "a.json") == report
    shuffled = [*arguments[:2], f"--out={tmp_path / 'b'}", "--codecs=PCA", "--images=20", "--shuffle"]
    monkeypatch.setattr(codecs, "pca_curve", lambda train, test, watch: seen.append(test) or curve((8.0, 0.1)))
    seen = []
    assert exit_status(lambda: codecs.main(shuffled)) == 0
    test = load_dataset("fashion_mnist", data_dir=data_dir, manual_dir=manual_dir).test.read(np.arange(20))[0]
    assert not np.array_equal(seen[0], test)
    assert sorted(map(bytes, seen[0])) == sorted(map(bytes, test))
    arguments[3] = "--images=19"
    assert exit_status(lambda: codecs.main(arguments)) == 1
    assert "a.json: has test_images 20, not 19: choose another --out" in capsys.readouterr().err


def test_a_run_has_the_bits_of_its_file(trained_run, data_dir, manual_dir, monkeypatch):
    found = {}
    monkeypatch.setattr(codecs, "evaluate_coded", lambda *a, **k: found.update(evaluate_coded(*a, **k)) or found)
    dataset = load_dataset(
        "fashion_mnist", data_dir=data_dir, manual_dir=manual_dir, validation_size=NUM_IMAGES["test"]
    )
    (point,) = codecs.run_curve(str(trained_run), dataset, 10)["points"]
    assert found["num_images"] == 10
    assert point["bits_per_image"] == 8 * found["coded_bytes"] / 10
    assert (point["mse"], point["ssim"]) == (found["coded_mse"], found["coded_ssim"])
    other = dataclasses.replace(dataset, test=dataset.validation)
    with pytest.raises(UserError, match="was trained on other data than --data"):
        codecs.run_curve(str(trained_run), other, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--codecs=GIF"], "--codecs=GIF: there is no codec 'GIF'; choose from JPEG, "),
        (["--per_mosaic=1"], "--per_mosaic=1: must be at least 2"),
        (["--single_files=-1"], "--single_files=-1: must be at least 0"),
        (["--channels=2"], "--channels=2: choose one of 0, 1, 3"),
        (["--workdir=a/x", "--workdir=b/x"], "--workdir: two folders are called x: rename one"),
        (["--draw"], "there is no such file; measure with python -m benchmarks.codecs"),
    ],
)
def test_bad_input_gets_one_line(arguments, message, tmp_path, capsys):
    assert exit_status(lambda: codecs.main([f"--out={tmp_path / 'a'}", *arguments])) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_a_damaged_file_of_results_is_named(tmp_path):
    write_json(tmp_path / "a.json", {"data": "x"})
    with pytest.raises(UserError, match=r"a\.json cannot be read \(it has no .*measure again"):
        codec_curves.read_report(tmp_path / "a.json")


def test_a_pillow_without_a_library_is_reported(monkeypatch):
    monkeypatch.setattr(image_codecs.features, "check", lambda name: False)
    assert IMAGE_CODECS["AVIF"].missing().startswith("this Pillow is built without it")
