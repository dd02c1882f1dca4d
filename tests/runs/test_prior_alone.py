"""A prior over user-provided grids: digits of 8×8 integers, and hybrid latents."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.datasets import load_digits

import evaluate
import hvq_jax as hvq
import sample
import train
from hvq_jax.data.options import DataOptions
from hvq_jax.errors import UserError
from hvq_jax.quantizers import CodebookOptions, LatentOptions
from hvq_jax.runs.options import PriorStageOptions
from hvq_jax.runs.own_latents import own_latents
from tests.workdirs import digests, error_of

pytestmark = pytest.mark.usefixtures("without_plots")

SMALL = (
    "--config.stage=prior",
    "--config.prior.width=16",
    "--config.prior.num_layers=3",
    "--config.prior.head_width=32",
    "--config.prior.batch_size=64",
    "--config.prior.eval_every_steps=60",
    "--config.prior.learning_rate=1.5e-2",
    "--config.prior.warmup_steps=10",
    "--config.data.validation_size=100",
    "--config.data.test_size=300",
)


def arguments(latents, workdir, mode, num_codes, *more):
    of_data = [f"--config.prior.latents={latents}", f"--config.latent.num_codes={num_codes}"]
    return [f"--config=configs/default.py:{mode}", f"--workdir={workdir}", *of_data, *SMALL, *more]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """1,797 digits in 17 shades of grey."""
    path = tmp_path_factory.mktemp("own") / "digits.npz"
    found = load_digits()
    np.savez(path, train_indices=found.images.astype(np.uint8), train_labels=found.target)
    return path


def test_digits_from_training_to_samples(digits, tmp_path, capsys):
    briefly = ("--config.prior.num_steps=50", "--config.parallel=jit")
    command = arguments(digits, tmp_path / "run", "vq", 17, *briefly)
    assert train.main(command) == 0
    assert "data      digits.npz: 1,397 latents to train on, " in capsys.readouterr().out
    nats = json.loads((tmp_path / "run" / "summary.json").read_text())["prior"]["test"]
    with np.load(digits) as stored:
        shares = np.bincount(stored["train_indices"].ravel()) / stored["train_indices"].size
    # Shades that did not depend on each other would take this much.
    assert nats["nats_per_latent"] < 0.9 * 64 * -(shares * np.log(shares)).sum()
    assert "bits_per_pixel" not in nats
    before = digests(tmp_path / "run", "prior")
    assert train.main([f"--workdir={tmp_path / 'run'}"]) == 0  # it knows where its latents are
    assert digests(tmp_path / "run", "prior") == before

    out = tmp_path / "drawn.npz"
    assert sample.main([f"--workdir={tmp_path / 'run'}", "--num_samples=70", "--label=1", f"--out={out}"]) == 0
    with np.load(out) as drawn:
        assert list(drawn) == ["class_names", "indices", "labels"]
        assert drawn["indices"].shape == (70, 8, 8)
        assert 0 <= drawn["indices"].min() <= drawn["indices"].max() <= 16
        # The margins of all digits are nearly empty, and the strokes of a one run down the middle.
        assert drawn["indices"][:, :, 0].mean() < 1 < 4 < drawn["indices"][:, :, 3:5].mean()
    of_images = (f"--reconstruct={tmp_path}", "--vary=a.png", f"--decode={out}")
    for flags in (["--out=a.png"], *([flag, f"--out={tmp_path / 'a.npz'}"] for flag in of_images)):
        assert sample.main([f"--workdir={tmp_path / 'run'}", *flags]) == 1
    assert evaluate.main([f"--workdir={tmp_path / 'run'}"]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert "no autoencoder to make images" in errors[0]
    assert "no autoencoder, so no images" in errors[-1]
    assert len(errors) == 5

    run = hvq.load(tmp_path / "run")
    np.testing.assert_array_equal(run.sample_latents(1, 3).indices, np.load(out)["indices"][:3])
    assert repr(run).endswith("digits.npz, latents of one's own; latent vq 8×8, 17 codes, 10 classes>")
    with pytest.raises(UserError, match="no autoencoder, so no images"):
        run.sample(1, 3)


def hybrid(size=600, part="lengths"):
    random = np.random.default_rng(0)
    channels = {"lengths": 1, "residuals": 3}[part]
    return {
        "train_indices": random.integers(0, 5, (size, 3, 2)),
        f"train_{part}": random.normal(size=(size, 3, 2, channels)).astype(np.float32),
        "frequent": np.arange(5) == 2,
    }


@pytest.mark.parametrize("mode", ["combined", "frequency"])
def test_hybrid_latents_come_out_as_they_went_in(tmp_path, mode):
    part, channels = ("residuals", 3) if mode == "frequency" else ("lengths", 1)
    np.savez(tmp_path / "own.npz", **hybrid(part=part))
    options = ["--config.prior.num_steps=2", "--config.prior.num_bins=4", "--config.prior.residual_step=0.5"]
    options += ["--config.latent.dim=3", "--config.prior.conditional=False", "--config.parallel=jit"]
    command = arguments(tmp_path / "own.npz", tmp_path / "run", mode, 5, *options)
    assert train.main(command) == 0
    assert sample.main([f"--workdir={tmp_path / 'run'}", "--num_samples=9", f"--out={tmp_path / 'a.npz'}"]) == 0
    with np.load(tmp_path / "a.npz") as drawn, np.load(tmp_path / "run" / "tables.npz") as tables:
        indices, parts = drawn["indices"], drawn[part]
        assert parts.shape == (9, 3, 2, channels)
        assert (parts[indices == 2] == 0).all()
        if mode == "frequency":
            np.testing.assert_array_equal(parts * 2, np.round(parts * 2))
        else:
            centroids = tables["centroids"][indices]
            assert (np.abs(parts - centroids).min(-1)[indices != 2] == 0).all()
        assert (parts[indices != 2] != 0).any()


def test_several_codes_per_position_come_out_as_they_went_in(tmp_path):
    """Codes of which the second repeats the first: only the first costs something, and samples repeat it too."""
    first = np.random.default_rng(0).integers(0, 5, (600, 2, 2))
    np.savez(tmp_path / "own.npz", train_indices=np.stack([first, first], axis=-1))
    of_two = ["--config.codebook.family=residual", "--config.codebook.depth=2", "--config.prior.conditional=False"]
    of_two += ["--config.prior.num_steps=60", "--config.parallel=jit"]
    command = arguments(tmp_path / "own.npz", tmp_path / "run", "vq", 5, *of_two)
    assert train.main(command) == 0
    nats = json.loads((tmp_path / "run" / "summary.json").read_text())["prior"]["test"]
    assert nats["nats_of_code_1"] == pytest.approx(4 * np.log(5), rel=0.1)
    assert nats["nats_of_code_2"] < 0.1
    assert nats["nats_per_latent"] == pytest.approx(nats["nats_of_code_1"] + nats["nats_of_code_2"])
    assert sample.main([f"--workdir={tmp_path / 'run'}", "--num_samples=30", f"--out={tmp_path / 'a.npz'}"]) == 0
    with np.load(tmp_path / "a.npz") as drawn:
        assert drawn["indices"].shape == (30, 2, 2, 2)
        assert (drawn["indices"][..., 0] == drawn["indices"][..., 1]).mean() > 0.95
        assert len(np.unique(drawn["indices"])) == 5


def read(path, mode="vq", depth=1, **sizes):
    latent_options = LatentOptions(mode=mode, num_codes=5, dim=3)
    codebook_options = CodebookOptions(family="residual", depth=depth) if depth > 1 else CodebookOptions()
    prior_options = PriorStageOptions(num_bins=2, conditional=False)
    data_options = DataOptions(**{"validation_size": 50, "test_size": 60, **sizes})
    return own_latents(str(path), latent_options, codebook_options, prior_options, data_options)


@pytest.mark.parametrize(
    ("indices", "said"),
    [
        (np.zeros((600, 2, 2, 3), int), "train_indices must be integers [N_train, h, w, 2]"),
        (np.zeros((600, 2, 2), int), "train_indices must be integers [N_train, h, w, 2]"),
        (np.full((600, 2, 2, 2), 5), "train_indices must be from 0 to 4"),
    ],
    ids=["three", "one", "too large"],
)
def test_another_number_of_codes_per_position_is_refused(tmp_path, indices, said):
    np.savez(tmp_path / "own.npz", train_indices=indices)
    with pytest.raises(UserError, match=re.escape(said)):
        read(tmp_path / "own.npz", depth=2)


def test_missing_splits_are_taken_out_of_train(tmp_path):
    arrays = hybrid()
    arrays["train_indices"] = np.arange(600 * 6).reshape(600, 3, 2) // 6 % 5  # one code per latent
    np.savez(tmp_path / "a.npz", **arrays, train_labels=np.arange(600) % 5)
    whole = read(tmp_path / "a.npz")
    splits = [whole.data.train, whole.data.validation, whole.data.test]
    assert [len(split) for split in splits] == [490, 50, 60]
    for split in splits:
        np.testing.assert_array_equal(split.items[:, 0, 0, 0], split.labels)  # still belong together
    assert (
        whole.counts
        == "490 latents to train on, 50 for validation, 60 for testing; validation and test taken from train"
    )
    tenths = read(tmp_path / "a.npz", validation_size=None, test_size=None)
    assert tenths.carved_sizes == {"validation": 60, "test": 60}
    assert whole.class_names == ("0", "1", "2", "3", "4")
    assert whole.fingerprint() == read(tmp_path / "a.npz").fingerprint()
    assert whole.fingerprint() != read(tmp_path / "a.npz", test_size=61).fingerprint()


def test_which_latents_are_taken_never_changes(tmp_path):
    """A resumed run would be tested on latents that it was trained on."""
    np.savez(tmp_path / "a.npz", train_indices=np.arange(100).reshape(100, 1, 1))
    options = (LatentOptions(mode="vq", num_codes=100), CodebookOptions(), PriorStageOptions(conditional=False))
    found = own_latents(str(tmp_path / "a.npz"), *options, DataOptions(validation_size=5, test_size=3)).data
    assert found.validation.items.ravel().tolist() == [3, 11, 13, 20, 92]
    assert found.test.items.ravel().tolist() == [2, 53, 59]


def test_residuals_may_be_given_at_all_positions_or_where_codes_have_them(tmp_path):
    arrays = hybrid(part="residuals")
    np.savez(tmp_path / "everywhere.npz", **arrays)
    rare = ~arrays["frequent"][arrays["train_indices"]]
    np.savez(tmp_path / "rows.npz", **{**arrays, "train_residuals": arrays["train_residuals"][rare]})
    one, other = (read(tmp_path / f"{name}.npz", "frequency").data for name in ("everywhere", "rows"))
    assert one.train.items[..., 1:].any()
    for split in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(one, split).items, getattr(other, split).items)


@pytest.mark.parametrize(
    ("mode", "changes", "says"),
    [
        ("vq", {"train_indices": None}, "has no array train_indices; it has train_lengths, frequent"),
        ("vq", {"train_indices": np.array(3)}, r"train_indices must be integers \[N_train, h, w\]; it is int64 of"),
        ("vq", {"train_indices": np.ones((600, 6), int)}, r"integers \[N_train, h, w\]; it is int64 of shape \(600, 6"),
        ("vq", {"train_indices": np.ones((600, 3, 2))}, r"integers \[N_train, h, w\]; it is float64"),
        ("vq", {"train_indices": np.full((600, 3, 2), 5)}, "train_indices must be from 0 to 4; it is from 5 to 5"),
        ("vq", {"train_indices": np.full((600, 3, 2), 5)}, "latent.num_codes K=5"),
        ("vq", {"train_indices": np.full((600, 3, 2), -1)}, "train_indices must be from 0 to 4; it is from -1"),
        ("vq", {"train_indices": np.ones((600, 0, 2), int)}, "train_indices must not be empty"),
        ("vq", {"train_indices": np.ones((0, 3, 2), int)}, "train_indices must not be empty"),
        ("vq", {"train_labels": np.ones(599, int)}, r"train_labels must be integers \[N_train\] with N_train=600"),
        ("vq", {"train_labels": np.full(600, -1)}, "train_labels must be from 0 to 65535; it is from -1 to -1"),
        ("vq", {"train_labels": np.full(600, 2**31)}, "train_labels must be from 0 to 65535"),
        ("vq", {"train_labels": np.full(600, 2**64 - 1, np.uint64)}, "train_labels must be from 0 to 65535"),
        ("vq", {"train_labels": np.full(600, 10**12)}, "train_labels must be from 0 to 65535"),
        ("vq", {"train_labels": np.ones(600)}, "train_labels must be integers"),
        ("vq", {"test_indices": np.ones((9, 3, 2), int), "train_labels": np.ones(600, int)}, "both be there"),
        ("vq", {"test_labels": np.ones(9, int)}, "it has test_labels, but no test_indices"),
        ("vq", {"test_indices": np.ones((9, 2, 2), int)}, r"test_indices must be .* with h=3, w=2"),
        ("projected", {"train_lengths": None}, "it has no array train_lengths.*latent.mode=projected"),
        ("projected", {"train_lengths": np.ones((600, 3, 2, 2))}, "train_lengths must be .*g=1; .*3, 2, 2"),
        ("frequency", {}, "it has no array train_residuals"),
        (
            "frequency",
            {"train_residuals": np.ones((600, 3, 2, 1), np.float32)},
            r"train_residuals must be floats \[N_train, h, w, D\] with N_train=600, h=3, w=2, D=3; .*3, 2, 1\)",
        ),
        ("frequency", {"train_residuals": np.ones((600, 3, 2, 3), int)}, "train_residuals must be floats"),
        ("frequency", {"train_residuals": np.ones((7, 3))}, r"has 7 rows, but \d+ positions of that split have a"),
        ("frequency", {"train_residuals": np.full((600, 3, 2, 3), -np.inf)}, "train_residuals is not finite"),
        ("projected", {"train_continuous": np.ones((600, 3, 2, 1))}, "rename train_continuous to train_lengths"),
        ("projected", {"train_lengths": np.full((600, 3, 2, 1), np.nan)}, "train_lengths is not finite everywhere"),
        ("projected", {"train_lengths": np.full((600, 3, 2, 1), 1e39)}, "train_lengths is not finite everywhere"),
        (
            "projected",
            {"present": np.ones(5, bool)},
            "store ~present, the codes without",
        ),
        ("frequency", {"train_indices": np.full((600, 3, 2), 7)}, "train_indices must be from 0 to 4"),
        ("combined", {"frequent": np.ones(4, bool)}, r"frequent must be bools \[K\] with K=5"),
        ("combined", {"frequent": np.ones(5, int)}, r"frequent must be bools \[K\] with K=5; it is int64"),
    ],
)
def test_bad_files_get_one_line(tmp_path, mode, changes, says):
    arrays = {name: values for name, values in {**hybrid(), **changes}.items() if values is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=says) as caught:
        read(tmp_path / "a.npz", mode)
    assert "\n" not in str(caught.value)


def complete():
    """Return all arrays that a file may have, for a latent with residuals."""
    random = np.random.default_rng(1)
    arrays = {"frequent": np.arange(5) < 2}
    for split, size in (("train", 30), ("validation", 4), ("test", 3)):
        indices = random.integers(0, 5, (size, 3, 2), dtype=np.int32)
        arrays[f"{split}_indices"] = indices
        arrays[f"{split}_labels"] = random.integers(0, 4, size)
        arrays[f"{split}_residuals"] = random.normal(size=(np.count_nonzero(indices >= 2), 3)).astype(np.float32)
    return arrays


DAMAGE = {
    "negated": lambda array: -array.astype(float) if array.dtype == bool else -1 - array,
    "beyond 32 bits": lambda array: array + np.float64(1e39) if array.dtype.kind == "f" else array + np.int64(2**33),
    "NaN": lambda array: array * np.nan,
    "an axis more": lambda array: array[..., None],
    "flat": lambda array: array.reshape(-1),
    "shorter": lambda array: array[:-1],
    "nothing": lambda array: array[:0],
    "strings": lambda array: array.astype("U2"),
    "another precision": lambda array: array.astype(np.float64 if array.dtype.kind == "f" else array.dtype),
    "the other byte order": lambda array: array.astype(array.dtype.newbyteorder()),
    "by column": np.asfortranarray,
}
HARMLESS = ("another precision", "the other byte order", "by column")


@given(name=st.sampled_from(sorted(complete())), damage=st.sampled_from([*DAMAGE, "missing"]))
def test_damage_is_named_and_harmless_changes_change_nothing(tmp_path_factory, name, damage):
    path = tmp_path_factory.mktemp("own") / "a.npz"
    arrays = complete()
    same = damage in HARMLESS or (damage == "flat" and arrays[name].ndim == 1)
    arrays[name] = np.zeros(0, object) if damage == "missing" else DAMAGE[damage](arrays[name])
    np.savez(path, **{key: array for key, array in arrays.items() if array.dtype != object})
    if same:
        np.savez(path.with_name("b.npz"), **complete())
        found, expected = (read(path.with_name(other), "frequency").data for other in ("a.npz", "b.npz"))
        np.testing.assert_array_equal(found.train.items, expected.train.items)
        return
    if damage == "negated" and name.endswith("residuals"):
        return  # as good as any
    with pytest.raises(UserError) as caught:
        read(path, "frequency")
    assert str(caught.value).startswith(f"{path} cannot be read (")
    assert name.partition("_")[0] in str(caught.value) or "residuals has" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_and_sizes_that_leave_nothing(tmp_path):
    (tmp_path / "text.npz").write_text("not an archive")
    np.savez(tmp_path / "objects.npz", train_indices=np.array([{}], object))
    np.save(tmp_path / "single.npy", np.ones(3))
    for name in ("text.npz", "objects.npz", "single.npy", "missing.npz"):
        with pytest.raises(UserError, match="cannot be read"):
            read(tmp_path / name)
    np.savez(tmp_path / "a.npz", **hybrid())
    said = (
        "data.validation_size=400: must be between 1 and 599 together with data.test_size=200, .* 600 training latents"
    )
    with pytest.raises(UserError, match=said):
        read(tmp_path / "a.npz", validation_size=400, test_size=200)


def test_what_does_not_go_together(digits, tmp_path, capsys):
    command = arguments(digits, tmp_path / "run", "vq", 17)
    assert "choose --config.stage=prior" in error_of([*command, "--config.stage=all"], capsys)
    np.savez(tmp_path / "own.npz", train_indices=np.ones((600, 3, 2), int))
    command = arguments(tmp_path / "own.npz", tmp_path / "run", "vq", 17)
    assert "no train_labels" in error_of(command, capsys)
    assert not (tmp_path / "run" / "config.json").exists()


def test_residuals_are_nothing_to_a_latent_without_them(tmp_path):
    np.savez(tmp_path / "a.npz", **{**hybrid(), "train_residuals": np.ones((7, 3), np.float32)})
    assert read(tmp_path / "a.npz", "vq").data.train.item_shape == (3, 2, 1)
