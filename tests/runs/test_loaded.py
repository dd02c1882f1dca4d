"""A trained run in a notebook: `hvq.load`, arrays in, arrays out."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

import hvq_jax as hvq
from hvq_jax.data.datasets import load_dataset
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.priors.sampling import top_rows
from hvq_jax.runs import stored
from hvq_jax.runs.trained import TrainedRun

TOP = np.arange(7)[:, None] < np.full((1, 7), 3)  # the mask of the top three of seven rows
MIDDLE = np.zeros((7, 7), bool)
MIDDLE[3] = True


@pytest.fixture(scope="module")
def run(trained_run):
    return hvq.load(trained_run)


@pytest.fixture(scope="module")
def split(data_dir):
    return load_dataset("fashion_mnist", data_dir=data_dir).test


@pytest.fixture(scope="module")
def images(split):
    return split.read(np.arange(4))[0]


def assert_equal(ours, theirs):
    """Compare two results: codes are equal, images up to a grey level, numbers up to rounding."""
    for name, value in vars(ours).items():
        other = getattr(theirs, name)
        if name == "indices" or value is None:
            np.testing.assert_array_equal(value, other)
        else:
            np.testing.assert_allclose(value.astype(float), other.astype(float), atol=1 if name == "images" else 1e-5)


def test_a_notebook_in_ten_lines(trained_run, images):
    run = hvq.load(trained_run)
    drawn = run.sample("Dress", 4, seed=1, temperature=0.9)
    codes = run.encode(images)
    decoded = run.decode(codes.indices, codes.gains)
    completed = run.complete(images, TOP, num_samples=2)
    varied = run.vary(images, num_samples=2, proposals=2)
    between = run.interpolate(images[0], images[1], steps=3)
    nats = run.log_likelihood(images, ["Dress", 0, 1, None])
    metrics = run.evaluate(images, labels=[0, 1, 2, 3])
    assert drawn.images.shape == decoded.shape == images.shape == (4, 28, 28, 1)
    assert completed.images.shape == varied.images.shape == (4, 2, 28, 28, 1)
    assert between.shape == (1, 3, 28, 28, 1)
    assert nats.per_image.shape == (4,)
    assert metrics["mse"] > 0


def test_what_is_encoded_decodes_to_the_reconstruction(run, images):
    codes, reconstructed = run.encode(images), run.reconstruct(images)
    np.testing.assert_array_equal(run.decode_latents(codes.latents), reconstructed.images)
    decoded = run.decode(codes.indices, codes.gains)
    np.testing.assert_allclose(decoded.astype(int), reconstructed.images, atol=1)
    assert (run.decode(codes.indices) != decoded).any()  # gains of 1
    np.testing.assert_array_equal(run.decode(codes.indices[0], codes.gains[0]), decoded[:1])
    plain = run.codebook[codes.indices]
    np.testing.assert_array_equal(run.decode_latents(plain), run.decode(codes.indices))
    transmitted = run.transmit(images)
    assert_equal(transmitted, run.images_of(run.tokens(images)))
    np.testing.assert_array_equal(transmitted.indices, codes.indices)
    assert (transmitted.gains != codes.gains).any()  # rounded to bins


@pytest.mark.parametrize("count", [3, 70])
def test_the_number_of_images_changes_nothing(run, trained_run, split, count):
    """A run in pieces pads to 64; here, to a power of two."""
    images = split.read(np.arange(count))[0]
    in_pieces = TrainedRun.load(trained_run)
    assert_equal(run.reconstruct(images), whole(in_pieces.reconstruct(images)))
    labels = np.arange(count) % 10
    assert_equal(run.sample(labels, seed=5), whole(in_pieces.sample(labels, seed=5)))


def whole(pieces):
    pieces = list(pieces)
    arrays = {name: [getattr(piece, name) for piece in pieces] for name in vars(pieces[0])}
    return type(pieces[0])(**{name: x[0] if x[0] is None else np.concatenate(x) for name, x in arrays.items()})


def test_each_shape_is_compiled_once(trained_run, images):
    stored._compiled.cache_clear()
    run = hvq.load(trained_run)

    def use(count, seed):
        codes = run.encode(images[:count])
        run.decode(codes.indices, codes.gains)
        run.sample("Bag", count, seed=seed)
        run.complete(images[:count], TOP if seed else MIDDLE, proposals=1)

    use(4, 0)
    programs = dict(run.stream._programs)
    sizes = {key: program._cache_size() for key, program in programs.items()}
    assert all(size == 1 or "draw" in str(key) for key, size in sizes.items())  # `draw`, with and without kept parts
    use(4, 1)
    use(3, 2)  # padded to four
    assert run.stream._programs == programs
    assert {key: program._cache_size() for key, program in programs.items()} == sizes
    use(2, 3)
    assert run.stream._programs == programs
    again = hvq.load(trained_run)  # the same models: the same programs
    again.encode(images)
    assert programs.items() >= again.stream._programs.items()


def test_images_of_any_form_are_the_same_images(run, images):
    expected = run.encode(images)
    in_range = images / np.float32(127.5) - 1
    for given, options in (
        (in_range, {}),
        (in_range.astype(np.float64), {"value_range": (-1, 1)}),
        (images / 255, {"value_range": (0, 1)}),
        (images[..., 0], {}),
        (jax.numpy.asarray(images), {}),
    ):
        assert_equal(run.encode(given, **options), expected)
    for one in (images[0], images[0, ..., 0]):
        assert_equal(run.encode(one), run.encode(images[:1]))


def test_labels_by_name_or_number(run):
    drawn = run.sample([3, 3, 3], seed=2)
    for labels in ("Dress", "dress", 3, np.int64(3)):
        assert_equal(run.sample(labels, 3, seed=2), drawn)
    assert_equal(run.sample(["Dress", 3, "DRESS"], seed=2), drawn)
    none = run.sample(num_samples=3, seed=2)
    assert_equal(run.sample([None, -1, None], seed=2), none)
    assert (none.indices != drawn.indices).any()


def test_completions_with_a_mask(run, trained_run, images):
    completed = run.complete(images[:2], TOP, num_samples=2, labels=["Dress", None], seed=3)
    tokens, numbers = run.tokens(images[:2]), np.array([3, 3, -1, -1], np.int32)
    by_rows = TrainedRun.load(trained_run).sample(
        numbers, seed=3, tokens=np.repeat(tokens, 2, axis=0), keep=lambda x: top_rows(x, rows=3)
    )
    np.testing.assert_array_equal(completed.indices.reshape(4, 7, 7), whole(by_rows).indices)
    assert completed.effective_proposals is None
    with pytest.raises(ArgumentError, match=r"^mask: keeps positions behind some that are drawn.*proposals=64"):
        run.complete(images, MIDDLE)
    transmitted = run.transmit(images)
    for proposals in (1, 4):
        completed = run.complete(images, MIDDLE, proposals=proposals)
        np.testing.assert_array_equal(completed.latents[:, 0, 3], transmitted.latents[:, 3])
        assert (completed.indices[:, 0] != transmitted.indices).any()
    assert completed.effective_proposals.shape == (4, 1)
    assert (completed.effective_proposals >= 1).all()
    assert (completed.effective_proposals <= 4.001).all()


def test_variations_keep_the_codes(run, images):
    forced, chosen = run.vary(images, 2), run.vary(images, 2, proposals=3)
    for varied in (forced, chosen):
        np.testing.assert_array_equal(varied.indices, np.repeat(run.encode(images).indices[:, None], 2, axis=1))
        assert (varied.gains[:, 0] != varied.gains[:, 1]).any()
    assert forced.effective_proposals is None
    assert chosen.effective_proposals.shape == (4, 2)


def test_metrics_are_those_of_the_summary(run, trained_run, split):
    images, labels = split.read(np.arange(len(split)))
    found = run.evaluate(images, labels)
    summary = json.loads((trained_run / "summary.json").read_text())
    for stage in ("autoencoder", "prior"):
        expected = summary[stage]["test"]
        compared = [name for name in expected if (stage, name) != ("prior", "loss")]
        np.testing.assert_allclose([found[name] for name in compared], [expected[name] for name in compared], rtol=1e-4)
    nats = run.log_likelihood(images, labels)
    assert nats.per_image.mean() == pytest.approx(-found["nats_per_latent"], rel=1e-5)
    assert nats.codes.sum((1, 2)).mean() == pytest.approx(-found["nats_of_codes"], rel=1e-5)
    assert nats.per_position.shape == (len(split), 7, 7)
    assert (nats.codes < 0).all()


def test_the_ends_of_an_interpolation_are_reconstructions(run, images):
    between = run.interpolate(images[:2], images[2:], steps=5)
    assert between.shape == (2, 5, 28, 28, 1)
    ends = run.reconstruct(images).images.astype(int)
    np.testing.assert_allclose(between[:, 0], ends[:2], atol=1)
    np.testing.assert_allclose(between[:, -1], ends[2:], atol=1)
    assert (np.abs(between[:, 2] - ends[:2]) > 1).any()
    np.testing.assert_allclose(run.interpolate(images[2:], images[:2], 5)[:, ::-1].astype(int), between, atol=1)


GREY = np.zeros((2, 28, 28, 1))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda run: run.encode(GREY.astype(np.int64)),
            "images: must be uint8, or float in [-1, 1]; the dtype is int64",
        ),
        (lambda run: run.encode(GREY > 0), "images: must be uint8"),
        (lambda run: run.encode(GREY), "images: float images from 0 to 0 may be meant in [0, 1] or in [-1, 1]: say"),
        (
            lambda run: run.encode(GREY - 1.5),
            "images: float images must be in [-1, 1]; the values are from -1.5",
        ),
        (lambda run: run.encode(GREY + 255.0), "images: float images must be in [-1, 1]; the values are from 255"),
        (lambda run: run.encode(GREY - 0.5, value_range=(0, 1)), "images: float images must be in [0, 1]"),
        (lambda run: run.encode(GREY * np.nan), "images: float images must be in [-1, 1]; not all are numbers"),
        (lambda run: run.encode(GREY, value_range=(0, 255)), "value_range=(0, 255): must be (0, 1) or (-1, 1)"),
        (lambda run: run.encode(GREY.astype(np.uint8), value_range=(0, 1)), "value_range=(0, 1): is for float images"),
        (lambda run: run.encode(np.zeros((2, 32, 32, 1), np.uint8)), "images: must be [N, 28, 28, 1] or [N, 28, 28]"),
        (lambda run: run.encode(np.zeros((2, 28, 28, 3), np.uint8)), "images: must be [N, 28, 28, 1]"),
        (lambda run: run.encode(GREY[:0].astype(np.uint8)), "images: must be [N, 28, 28, 1]"),
        (lambda run: run.interpolate(GREY - 1, GREY), "b: float images from 0 to 0"),
        (lambda run: run.interpolate(GREY - 1, GREY[:1] - 1), "b: there are 1, but 2 a"),
        (lambda run: run.interpolate(GREY - 1, GREY - 1, 1), "steps=1: must be at least 2"),
        (lambda run: run.decode(np.full((1, 7, 7), 16)), "indices: must be from 0 to 15; they are from 16 to 16"),
        (lambda run: run.decode(np.full((1, 7, 7), -1)), "indices: must be from 0 to 15"),
        (lambda run: run.decode(np.zeros((1, 7, 7))), "indices: must be integers; the dtype is float64"),
        (lambda run: run.decode(np.zeros((1, 8, 8), int)), "indices: must be [N, 7, 7]; the shape is (1, 8, 8)"),
        (lambda run: run.decode(np.zeros((1, 7, 7), int), np.ones((1, 7, 7, 2))), "gains: must be [N, 7, 7]"),
        (lambda run: run.decode(np.zeros((2, 7, 7), int), np.ones((1, 7, 7))), "gains: there are 1, but 2 indices"),
        (lambda run: run.decode(np.zeros((7, 7), int), np.full((7, 7), np.inf)), "gains: must be finite everywhere"),
        (lambda run: run.decode(np.zeros((7, 7), int), None, np.ones((7, 7, 8))), "residuals: the decoder sees none"),
        (lambda run: run.decode_latents(np.zeros((1, 7, 7, 9))), "latents: must be [N, 7, 7, 8]"),
        (lambda run: run.images_of(np.full((1, 7, 7, 2), 16)), "tokens: must be from 0 to 15"),
        (lambda run: run.complete(GREY - 1, np.ones((7, 7))), "mask: must be bool [7, 7]"),
        (lambda run: run.complete(GREY - 1, np.ones((8, 7), bool)), "mask: must be bool [7, 7]"),
        (lambda run: run.complete(GREY - 1, TOP, 0), "num_samples=0: must be at least 1"),
        (lambda run: run.complete(GREY - 1, TOP, proposals=0), "proposals=0: must be from 1 to 4096"),
        (lambda run: run.sample("Hat"), "labels: 'Hat' is none of the classes 0 T-shirt/top, 1 Trouser"),
        (lambda run: run.sample([0, 10]), "labels: 10 is none of the classes"),
        (lambda run: run.sample([True]), "labels: True is none of the classes"),
        (lambda run: run.sample([0.5]), "labels: 0.5 is none of the classes"),
        (lambda run: run.sample([0, 1], 3), "labels: there are 2, but 3 images"),
        (lambda run: run.sample([[0, 1]]), "labels: must be one, or one for each image"),
        (lambda run: run.sample(0, 0), "num_samples=0: must be at least 1"),
        (lambda run: run.sample(0, seed=-1), "seed=-1: must be from 0 to 4294967295"),
        (lambda run: run.sample(0, temperature=-1.0), "temperature=-1.0: must be at least 0"),
        (lambda run: run.sample(guidance=1.0), "guidance=1.0: there is no class to guide to"),
        (lambda run: run.log_likelihood(GREY - 1, [0, 1, 2]), "labels: there are 3, but 2 images"),
        (lambda run: run.evaluate(GREY - 1, "hat"), "labels: 'hat' is none of the classes"),
    ],
)
def test_a_bad_argument_is_one_line_with_its_name(run, call, says):
    with pytest.raises(ArgumentError) as caught:
        call(run)
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


def test_an_option_of_sampling_that_does_not_exist_is_named(run):
    with pytest.raises(TypeError, match="temprature"):
        run.sample(0, temprature=1.0)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(UserError, match="no run in"):
        hvq.load(tmp_path)


def test_results_and_the_run_are_shown_in_a_line(run, images):
    assert repr(run).endswith("fashion_mnist, 28×28×1 images; latent projected 7×7, 16 codes, 10 classes>")
    assert repr(run.encode(images)) == (
        "Encoded(indices=int32[4, 7, 7], gains=float32[4, 7, 7], latents=float32[4, 7, 7, 8])"
    )


def test_a_notebook_stays_quiet(trained_run):
    program = (
        "import sys, numpy as np, hvq_jax as hvq\n"
        "run = hvq.load(sys.argv[1])\n"
        "run.encode(np.zeros((1, 28, 28, 1), np.uint8)), run.log_likelihood(np.zeros((1, 28, 28, 1), np.uint8))"
    )
    command = [sys.executable, "-W", "default", "-c", program, str(trained_run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_an_autoencoder_in_memory_is_kept_beside_a_prior_in_a_checkpoint(trained_run):
    run = TrainedRun.load(trained_run).with_autoencoder(6)
    state = run.autoencoder_state
    given = run.with_autoencoder(state).with_prior(4)
    assert given.given_autoencoder is state
    assert run.with_autoencoder(state).with_prior(run.prior_state).given_autoencoder is state
    assert TrainedRun.load(trained_run).with_autoencoder(6).with_prior(4).given_autoencoder is None  # read when needed
