"""The report of runs: what it measures on the tiny trained run, how it is written, and how it reads in a browser."""

import base64
import dataclasses
import gc
import io
import re
import shutil
import types
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

import report as command
from hvq_jax.data.datasets import AnySplit, ImageDataset
from hvq_jax.errors import UserError
from hvq_jax.report import charts, findings, page
from hvq_jax.report.comparison import comparison
from hvq_jax.report.findings import Detail, find
from hvq_jax.report.markup import to_html
from hvq_jax.report.page import make_page
from hvq_jax.report.sections.codes import codes
from hvq_jax.report.sections.rates import rates
from hvq_jax.report.sections.summary import card_texts
from hvq_jax.report.sections.training import training
from hvq_jax.report.write import write_report
from hvq_jax.runs.loaded import LoadedRun
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.training.state import TrainState
from tests.browser import needs_chromium, opened
from tests.readability import faults_by_view

NUM_IMAGES = 70  # more than the features of the classifier


class Watched:
    """A split that counts how many of its images are read."""

    def __init__(self, split):
        self.split, self.num_read = split, 0

    def __len__(self):
        return len(self.split)

    def __getattr__(self, name):
        return getattr(self.split, name)

    def read(self, rows):
        self.num_read += len(rows)
        return self.split.read(rows)


@pytest.fixture(scope="module")
def measured(trained_run):
    """The findings on the tiny run, under a name that has to be escaped, and its data set, which it has read."""
    run = TrainedRun.load(trained_run)
    data = findings.open_data(run)
    data = dataclasses.replace(data, train=Watched(data.train))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(findings, "open_data", lambda run: data)
        return find(run, "a<b>", num_images=NUM_IMAGES, seed=0), data


@pytest.fixture(scope="module")
def found(measured):
    return measured[0]


@pytest.fixture(scope="module")
def html(found):
    return make_page([found])


@pytest.fixture(scope="module")
def side_by_side(found):
    """The report on the run and on one without a prior, of another seed."""
    names = ("num_images", "mse", "psnr", "ssim", "perplexity", "codes_used", "png_bits_per_image")
    options = dataclasses.replace(found.run.stream.options, seed=7)
    without_prior = dataclasses.replace(
        found,
        name="b",
        run=LoadedRun(dataclasses.replace(found.run.stream, options=options)),
        metrics={name: found.metrics[name] for name in names},
        examples=dataclasses.replace(found.examples, bits=None),
        quality=dataclasses.replace(found.quality, samples=None, accuracy=None, confusion=None),
        records=[row for row in found.records if row["stage"] == "autoencoder"],
        drawn=None,
        left_out={"samples": "this run has no prior to draw from"},
    )
    return make_page([found, without_prior])


def headings(html):
    return re.findall("<h2>(.*?)</h2>", html)


def test_it_has_every_section_and_loads_nothing(html):
    assert headings(html) == [
        "Training", "Reconstructions", "Samples", "As a classifier sees them", "Rates", "Inside the latent", "Codebook",
        "Data", "Settings", "Versions and times",
    ]  # fmt: skip
    assert len(html) < page.MOST_BYTES
    addresses = re.findall(r"""(?:src|href)="([^"]*)"|url\(["']?([^"')]*)""", html)
    assert all(re.match("data:image/png;|#", one or other) for one, other in addresses)
    assert "<script" not in html
    assert "a<b>" not in html
    assert "Report of a&lt;b&gt;" in html


def test_its_numbers_are_those_of_the_run(found, html):
    metrics, quality = found.metrics, found.quality
    shown = [f"{metrics['psnr']:.2f} dB", f"{metrics['coded_bytes']:,} for {NUM_IMAGES} images"]
    shown += [f"{metrics[name]:,.1f}" for name in ("bits_per_image", "static_bits_of_codes", "coded_bits_per_image")]
    for text in (*shown, *found.class_names):
        assert text in html
    assert quality.confusion.sum() == NUM_IMAGES
    assert quality.accuracy == pytest.approx(np.trace(quality.confusion) / NUM_IMAGES)
    # The bits of the maps are those of the rates, here of some of the images.
    assert found.examples.bits.shape == (findings.MOST_EXAMPLES, 7, 7)
    assert found.examples.bits.sum((1, 2)).mean() == pytest.approx(metrics["bits_per_image"], rel=0.2)
    assert found.use.counts.sum() == NUM_IMAGES * 7 * 7


def test_training_images_are_read_once_to_find_the_nearest_and_once_to_judge(measured):
    train = measured[1].train
    assert train.num_read == len(train) + len(train) + NUM_IMAGES


def test_neither_the_data_nor_arrays_of_the_run_are_kept(measured):
    found, data = measured
    reachable, met = [found], set()
    while reachable:
        each = reachable.pop()
        if id(each) in met or isinstance(each, type | types.ModuleType | types.FunctionType):
            continue
        met.add(id(each))
        assert not isinstance(each, AnySplit | ImageDataset | TrainState | Watched)
        reachable += gc.get_referents(each)
    assert found.contents in data.counts


def test_rates_stand_beside_the_quality_of_what_they_count(found):
    """The prior's bits are those of rounded latents, whose PSNR only a file tells; a discrete latent is not rounded."""
    metrics = {**found.metrics, "psnr": 30.0, "coded_psnr": 20.0}
    without_file = {name: value for name, value in metrics.items() if not name.startswith("coded_")}
    for mode, given, by_prior in (
        ("projected", metrics, 20.0),
        ("projected", without_file, None),
        ("vq", without_file, 30.0),
    ):
        stream = found.run.stream
        options = dataclasses.replace(stream.options, latent=dataclasses.replace(stream.options.latent, mode=mode))
        run = LoadedRun(dataclasses.replace(stream, options=options))
        each = dataclasses.replace(found, run=run, metrics=given)
        table = to_html(rates(each)).partition("latent, by the prior")[2].partition("</tr>")[0]
        assert re.findall("<td>(.*?)</td>", table)[-1] == ("–" if by_prior is None else f"{by_prior:.2f} dB")
        chart = comparison((each, each), Detail(0, 1), lambda make, *given: make(*given))[1]
        names = [] if chart is None else [node.text for node in chart.iter("title")]
        assert [name for name in names if ", prior" in name][:1] == (
            [] if by_prior is None else [f"a<b>, prior: {by_prior:g} at {given['bits_per_image']:,.6g}"]
        )


def test_a_file_that_was_not_measured_is_that_of_the_summary(found):
    metrics = {name: value for name, value in found.metrics.items() if not name.startswith("coded_")}
    stored = {"num_images": 256, "coded_bytes": 5120, "coded_bits_per_image": 160.0}
    summary = {**found.summary, "coded": {"test": stored}}
    cards = list(card_texts(dataclasses.replace(found, metrics=metrics, summary=summary)))
    assert ("Bytes per image, in a file", "20.0", "5,120 for 256 images") in cards
    elsewhere = dataclasses.replace(found, name="b", metrics=metrics, summary=summary)

    def caption(*runs):
        return to_html(comparison(runs, Detail(0, 1), lambda make, *given: make(*given))[0])

    stored = "Files could not be coded here: their bytes are as stored, by 256 of b."
    assert f"measured on {NUM_IMAGES} test images. {stored}" in caption(found, elsewhere)
    assert "could not be coded" not in caption(found, found)


def test_options_that_differ_from_their_defaults_come_first(html):
    first, _, rest = html.partition("All other options, at their defaults")
    assert "<code>latent.num_codes</code> = <b>16</b><small> default 512</small>" in first
    assert "K, number of codes per codebook" in first
    assert "<code>codebook.decay</code>" in rest
    assert "<code>codebook.decay</code>" not in first


def test_the_nearest_codes_are_of_all_and_have_a_picture_where_they_are_shown(found):
    for most, caption in ((16, "its nearest codes."), (2, "its nearest codes of all; of those that are not shown")):
        section = codes(found, Detail(0, most), None, "atlas")
        tiles = [each for each in section.iter("span") if each.get("class") == "about"]
        shown = {tile.code for tile in found.atlas.tiles[:most]}
        assert len(tiles) == most
        for about, tile in zip(tiles, found.atlas.tiles, strict=False):
            near = about[-1]
            assert "".join(near.itertext()) == f"nearest {', '.join(map(str, tile.neighbours))}"
            assert len(near.findall("i")) == len(shown & set(tile.neighbours))
        assert caption in to_html(section)


def test_what_a_run_was_is_said_in_words(found):
    change = {"step": 1750, "option": "autoencoder.num_epochs", "from": 6, "to": 9}
    each = dataclasses.replace(
        found, history=[change], summary={**found.summary, "processes": 2}, not_used="3 .txt", contents="9 images"
    )
    html = make_page([each])
    assert "<p>change: autoencoder.num_epochs is 9 from step 1750 on, 6 before</p>" in html  # as training says it
    assert ", 2 processes<" in html
    assert "<p>9 images.</p><p>Left out: 3 .txt.</p>" in html
    assert ", 1 process<" in make_page([dataclasses.replace(found, summary={**found.summary, "processes": 1})])


def test_all_images_can_be_decoded_and_are_those_of_the_run(found, html):
    sources = re.findall('src="data:image/png;base64,([^"]*)"', html)
    images = [np.asarray(Image.open(io.BytesIO(base64.b64decode(source)))) for source in sources]
    for image in (found.examples.originals[0], found.examples.reconstructions[-1], found.drawn.nearest.images[0]):
        assert any(np.array_equal(image[..., 0], other) for other in images)


def test_the_two_kinds_of_lines_are_told_where_there_are_two(found):
    def text(records):
        return "".join(training(dataclasses.replace(found, records=records)).itertext())

    assert "Thin lines are the training split" in text(found.records)
    only = [row for row in found.records if row["split"] == "train"]
    assert "Thin lines" not in text(only)
    assert "Hold the pointer over a point" in text(only)


def test_runs_side_by_side(side_by_side):
    assert headings(side_by_side)[:6] == [
        "Side by side", "Rate and distortion", "Training of all runs", "The same images through each run",
        "Differences", "Training",
    ]  # fmt: skip
    differences = side_by_side.partition("<h2>Differences</h2>")[2].partition("</section>")[0]
    assert re.findall("<code>(.*?)</code>", differences) == ["seed"]
    assert re.findall("<td>(.*?)</td>", differences) == ["0", "7"]


def test_it_shows_less_rather_than_being_too_large(found, html, monkeypatch):
    monkeypatch.setattr(page, "MOST_BYTES", len(html) - 1)
    monkeypatch.setattr(page, "_DETAILS", (page._DETAILS[0], page._DETAILS[-1]))
    smaller = make_page([found])
    assert len(smaller) < len(html)
    assert "Larger than" not in smaller
    assert headings(smaller) == headings(html)
    assert smaller.count("<img") < html.count("<img")


@pytest.mark.parametrize("num_runs", [1, 2])
def test_one_that_cannot_be_small_says_so_and_its_charts_are_drawn_once(found, num_runs, tmp_path, monkeypatch, capsys):
    drawn, to_svg = [], charts._to_svg
    monkeypatch.setattr(charts, "_to_svg", lambda *given: drawn.append(1) or to_svg(*given))
    monkeypatch.setattr(page, "MOST_BYTES", 10)
    monkeypatch.setattr("hvq_jax.report.write.MOST_BYTES", 10)
    monkeypatch.setattr("hvq_jax.report.write.find", lambda *given, **options: dataclasses.replace(found))
    run, folders = found.run.stream.workdir, [tmp_path / name for name in "ab"[:num_runs]]
    for folder in folders:
        folder.symlink_to(run)
    html = write_report([str(folder) for folder in folders], str(tmp_path / "a.html")).read_text()
    assert "<p>Larger than 5 MB: for a smaller file, report on fewer runs at a time. Made by" in html
    assert "MB, more than 5 MB: for a smaller file, report on fewer runs at a time" in capsys.readouterr().out
    assert html.count("<svg") == len(drawn) >= 5


def test_without_the_data_it_says_so_and_shows_what_is_stored(trained_run, monkeypatch):
    def gone(run):
        raise UserError("the data set is gone")

    monkeypatch.setattr(findings, "open_data", gone)
    found = find(TrainedRun.load(trained_run), "a", num_images=3, seed=0)
    html = make_page([found])
    assert headings(html) == ["Training", "Data", "Settings", "Versions and times"]
    assert "the data set is gone" in html
    assert f"{found.summary['autoencoder']['test']['psnr']:.2f} dB" in html


def test_where_rates_cannot_be_measured_all_else_is_of_the_images(trained_run, monkeypatch):
    def fails(*given):
        raise UserError("a block does not come back")

    monkeypatch.setattr(findings, "_measure", fails)
    monkeypatch.setattr(findings, "_judge", fails)
    monkeypatch.setattr(findings, "_draw", lambda *given: None)
    found = find(TrainedRun.load(trained_run), "a", num_images=3, seed=0)
    html = make_page([found])
    assert "in the latents of 3 test images" in html
    rates = html.partition("<h2>Rates</h2>")[2].partition("</section>")[0]
    assert re.findall('<th scope="row">(.*?)</th>', rates) == ["raw pixels", "as PNG", "codes, each of the same length"]
    assert " dB" not in rates  # that of the summary is of all test images
    assert f"{found.summary['autoencoder']['test']['psnr']:.2f} dB" in html
    assert "The main numbers of each run, as stored with a and a." in make_page([found, found])


def test_of_a_prior_over_given_latents(found):
    stream = dataclasses.replace(found.run.stream, image_shape=None, own_latent_shape=(7, 7))
    missing = dict.fromkeys(("examples", "use", "atlas", "drawn", "quality"))
    metrics = {"nats_per_latent": found.metrics["nats_per_latent"]}
    alone = dataclasses.replace(found, run=LoadedRun(stream), metrics=metrics, num_images=0, contents="", **missing)
    html = make_page([alone])
    assert headings(html) == ["Training", "Data", "Settings", "Versions and times"]
    assert "Bits per latent" in html


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out=a.txt"], "a.txt: must end in .html"),
        (["--out=none/a.html"], "none/a.html: the folder does not exist"),
        (["--num_images=0"], "--num_images=0: must be at least 1"),
        (["--seed=-1"], "--seed=-1: must be from 0"),
        (["--workdir={run}"], "is named more than once"),
        (["--workdir=other"], "--out is required for a report of several runs"),
        (["--workdir=other", "--out=a.html"], "no run in"),
        (["--workdir=other", "--out=none/a.html"], "no run in"),
    ],
)
def test_bad_commands_are_one_line(trained_run, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = [argument.replace("{run}", str(trained_run)) for argument in arguments]
    assert command.main([f"--workdir={trained_run}", *given]) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: ")
    assert line.count("\n") == 1, line
    assert message in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("out", [[], ["--out=missing/a.html"], ["--out=foreign/checkpoints/a.html"]])
@pytest.mark.parametrize("workdir", ["missing", "foreign"])
def test_a_workdir_without_a_run_is_named_whatever_is_to_be_written(workdir, out, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "foreign" / "checkpoints").mkdir(parents=True)
    assert command.main([f"--workdir={workdir}", *out]) == 1
    line = capsys.readouterr().err
    assert line.startswith(f"error: no run in {tmp_path / workdir}"), line
    assert line.count("\n") == 1


def test_by_default_it_is_written_beside_the_run(found, trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("hvq_jax.report.write.find", lambda *given, **options: found)
    monkeypatch.setattr("hvq_jax.report.write.make_page", lambda runs: "".join(run.name for run in runs))
    run = shutil.copytree(trained_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    path = write_report([str(run)])
    assert path == run / "report.html"
    assert path.read_text() == "a<b>"
    assert command.main([f"--workdir={trained_run}", f"--out={tmp_path / 'a.html'}"]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'a.html'}\n"


def test_charts_are_well_formed_and_can_be_seen_on_a_dark_page(html):
    drawn = re.findall("<svg.*?</svg>", html, re.DOTALL)
    for chart in drawn:
        assert ET.fromstring(chart).tag == "svg"
        used = set(re.findall(r'(?:href="#|url\(#)([\w-]+)', chart))
        assert used == set(re.findall(r'\bid="([\w-]+)"', chart))
    assert "#000000" not in "".join(drawn)


@needs_chromium
def test_it_reads_well_in_a_browser(found, html, side_by_side, tmp_path):
    """On a phone and on a desktop, light and dark; in one browser for everything, since starting one takes seconds."""
    one, two = tmp_path / "one.html", tmp_path / "two.html"
    one.write_text(html)
    two.write_text(side_by_side)
    with opened() as watched:
        browser = watched.page
        browser.goto(two.as_uri())
        browser.locator("details").evaluate_all("all => all.forEach(each => { each.open = true; })")
        assert faults_by_view(browser) == {}
        browser.goto(one.as_uri())
        assert faults_by_view(browser) == {}
        assert browser.locator("svg.chart").count() == 5
        assert browser.locator("svg.chart use > title").first.text_content().startswith("loss")
        tile = browser.locator(".tile").first
        about = tile.locator(".about")
        assert not about.is_visible()
        tile.hover()
        assert about.is_visible()
        uses = found.atlas.tiles[0].count
        assert f"rank 1: {uses:,} use" in about.inner_text()
        browser.evaluate("document.body.insertAdjacentHTML('beforeend', '<p style=\"width:9999px;color:#777\">bad')")
        assert faults_by_view(browser)["dark", 390].keys() == {"overflow", "low contrast"}  # they would be noticed
        assert (watched.errors, watched.elsewhere) == ([], [])
