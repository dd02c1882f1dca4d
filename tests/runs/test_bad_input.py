"""One clear line for every mistake on the command line of `train.py`, and nothing overwritten."""

import numpy as np
import pytest

import train
from hvq_jax.data.datasets import ImageDataset, Split
from hvq_jax.runs import open as opening
from tests.workdirs import error_of


def test_the_prior_alone_needs_an_autoencoder(tmp_path, tiny_arguments, capsys):
    line = error_of([*tiny_arguments, f"--workdir={tmp_path / 'run'}", "--config.stage=prior"], capsys)
    assert "no checkpoint of the autoencoder" in line


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--config.latent.mode=nonsense", "choose one of vq, projected, frequency, combined"),
        ("--config.latent.num_frequent=-1", "must be at least 0"),
        ("--config.latent.frequent_mass=1.5", "must be from 0 to 1"),
        ("--config.latent.num_kodes=3", "did you mean --config.latent.num_codes?"),
        ("--config.latent.num_codes=many", "--config.latent.num_codes=many"),
        ("--config.autoencoder.batch_size=2", "must be a multiple of 4, the number of devices"),
        ("--config.autoencoder.batch_size=18", "must be a multiple of 4, the number of devices"),
        ("--config.autoencoder.batch_size=9000", "there are only 512 training images"),
        ("--config.network.compute_dtype=float16", "compute_dtype=float16: choose one of float32, bfloat16"),
        ("--config.prior.compute_dtype=float64", "compute_dtype=float64: choose one of float32, bfloat16"),
        ("--config.stage=half", "choose one of all, autoencoder, prior"),
        ("--config.codebook.family=nonsense", "choose one of codebook, residual, grouped, "),
        ("--config.codebook.learning=nonsense", "choose one of ema, gradient, simvq, diveq, or package.module:Class"),
        ("--config.codebook.unit_norm=nonsense", "choose one of none, codes, both"),
        (
            "--config.codebook.method=spherical",
            "--config.codebook.method: it is --config.codebook.learning=ema|gradient now",
        ),
        ("--config.codebook.normalize=True", "--config.codebook.normalize: it is --config.codebook.unit_norm=both now"),
        ("--config.codebook.init=nonsense", "choose one of uniform, data, kmeans"),
        ("--config.codebook.assignment=nonsense", "choose one of euclidean, cosine, projection"),
        ("--config.latent.estimator=nonsense", "choose one of straight_through, rotation, diveq"),
        ("--config.codebook.unit_norm=codes", "needs --config.loss.commitment_target=projection"),
        (
            "--config.codebook.family=fsq",
            "--config.latent.mode=projected: --config.codebook.family=fsq needs --config.latent.mode=vq",
        ),
        ("--config.codebook.depth=5", "must be from 1 to 4"),
        ("--config.codebook.depth=2", "choose --config.codebook.family=residual|"),
        ("--config.codebook.family=residual", "--config.codebook.family=residual needs --config.latent.mode=vq"),
        ("--config.latent.projection_groups=3", "must divide --config.latent.dim=8"),
        ("--config.loss.entropy_temperature=0", "must be at least 1e-06"),
        ("--config.data.name=nothing_like_it", "nothing_like_it"),
        ("--config.autoencoder.steps_per_dispatch=10001", "must be from 0 to 10000"),
        ("--config.autoencoder.num_steps=99999999999999999999", "must be at most 2147483647"),
        ("--config.sampling.top_k=3000000000", "must be at most 2147483647"),
        ("--config.latent.num_codes=100000000000", "must be at most 2147483647"),
        ("--config.latent.num_codes=2147483647", "the training state of the autoencoder takes at least"),
        ("--config.latent.dim=1000000000", "the training state of the autoencoder takes at least"),
        ("--config.prior.width=100000000", "the training state of the prior takes at least"),
        ("--config.data.image_size=1000000", "a batch of 16 images of 1000000×1000000 takes at least"),
        ("--config.autoencoder.learning_rate=1e40", "must be finite in 32 bits"),
        ("--config.autoencoder.clip_norm=inf", "must be finite in 32 bits"),
        ("--profile=0", "--profile=0"),
        ("--profile=some", "--profile=some"),
        ("--nonsense=1", "nonsense"),
        ("nonsense", "nonsense"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, tiny_arguments, argument, says, capsys):
    assert says in error_of([*tiny_arguments, f"--workdir={tmp_path / 'run'}", argument], capsys)
    assert not (tmp_path / "run" / "checkpoints").exists()


RESIDUAL = ["--config.codebook.family=residual", "--config.codebook.depth=2"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--config.autoencoder.num_steps=0", "--config.autoencoder.num_epochs=2147483647"],
            "error: --config.autoencoder.num_epochs=2147483647: ",
        ),
        (
            [
                "--config.codebook.family=tests.plugins.pairs:Pairs",
                "--config.codebook.depth=2",
                "--config.latent.mode=projected",
            ],
            "no prior over these with --config.latent.mode=projected: choose --config.latent.mode=vq or --config.stage",
        ),
        (
            ["--config.codebook.family=residual", "--config.latent.mode=vq"],
            "--config.codebook.family=residual needs from 2 to 4 codebooks",
        ),
        (
            [*RESIDUAL, "--config.latent.mode=projected"],
            "--config.latent.mode=projected: --config.codebook.family=residual needs --config.latent.mode=vq",
        ),
        (
            [*RESIDUAL, "--config.codebook.learning=gradient"],
            "--config.codebook.family=residual has no such option: choose ",
        ),
        (
            [*RESIDUAL, "--config.codebook.unit_norm=both"],
            "choose --config.codebook.family=codebook|grouped, or --config.codebook.unit_norm=none",
        ),
        (["--config.codebook.family=fsq", "--config.codebook.levels=(8,1)"], "must be integers of at least 2"),
        (["--config.codebook.family=fsq", "--config.codebook.depth=2"], "or --config.codebook.depth=1"),
        (
            ["--config.codebook.family=fsq", "--config.latent.estimator=rotation"],
            "--config.codebook.family=fsq needs --config.latent.estimator=straight_through",
        ),
        (["--config.codebook.assignment=projection"], "choose projected"),
        (["--config.prior.name=transformer", "--config.prior.num_heads=3"], "must divide --config.prior.width=8"),
        (["--config.prior.dropout=0.1"], "choose --config.prior.name=transformer, or --config.prior.dropout=0.0"),
        (["--config.sampling.guidance=1", "--config.prior.label_dropout=0"], "choose a positive --config.prior.label"),
    ],
)
def test_what_makes_no_sense_together_gets_one_line(tmp_path, tiny_arguments, arguments, says, capsys):
    everything = [*tiny_arguments, f"--workdir={tmp_path / 'run'}", "--config.latent.mode=vq", *arguments]
    assert says in error_of(everything, capsys)


def test_a_corrected_command_may_use_the_same_workdir(tmp_path, tiny_arguments, capsys):
    arguments = [*tiny_arguments, f"--workdir={tmp_path / 'run'}"]
    error_of([*arguments, "--config.data.name=nothing_like_it"], capsys)
    assert not (tmp_path / "run" / "config.json").exists()


def test_s_beyond_the_number_of_codes(tmp_path, tiny_arguments, capsys):
    arguments = [*tiny_arguments, f"--workdir={tmp_path / 'run'}", "--config.latent.num_frequent=17"]
    line = error_of([*arguments, "--config.latent.mode=frequency"], capsys)
    assert "--config.latent.num_frequent=17: must be from 0 to 16" in line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--workdir=DIR is missing"),
        (["--workdir=/nonexistent/nothing"], "--config=FILE is missing"),
        (["--workdir=x", "--config=configs/nonsense.py"], "the packaged configs are cifar10, cifar100, default"),
    ],
)
def test_a_command_line_that_lacks_something(arguments, says, capsys):
    assert says in error_of(arguments, capsys)


def test_a_config_file_that_fails_is_named(tmp_path, capsys):
    (tmp_path / "bad.py").write_text("def get_config():\n    return 1 / 0\n")
    line = error_of([f"--config={tmp_path / 'bad.py'}", f"--workdir={tmp_path}"], capsys)
    assert "ZeroDivisionError" in line


def test_help_explains_itself_and_lists_every_option(capsys):
    assert train.main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in (
        "--workdir",
        "Run the same command again to resume",
        "num_frequent",
        "projection_gradient",
        "commitment_target",
    ):
        assert word in text


def test_an_unwritable_workdir(tmp_path, tiny_arguments, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert ": not writable" in error_of([*tiny_arguments, f"--workdir={tmp_path / 'file' / 'run'}"], capsys)


def test_an_empty_data_folder(tmp_path, tiny_arguments, capsys):
    (tmp_path / "empty").mkdir()
    line = error_of(
        [
            *tiny_arguments,
            "--config.data.name=fashion_mnist",
            f"--config.data.data_dir={tmp_path / 'prepared'}",
            f"--config.data.manual_dir={tmp_path / 'empty'}",
            f"--workdir={tmp_path / 'run'}",
        ],
        capsys,
    )
    assert str(tmp_path / "empty") in line


def test_sides_that_are_no_multiples_of_four(tmp_path, tiny_arguments, monkeypatch, capsys):
    odd = Split(np.zeros((64, 28, 30, 1), np.uint8), np.zeros(64, np.int32))
    monkeypatch.setattr(opening, "open_dataset", lambda _: ImageDataset(odd, odd, odd, ("one",)))
    line = error_of([*tiny_arguments, f"--workdir={tmp_path / 'run'}"], capsys)
    assert "images are 28×30, and both sides must be multiples of 4" in line
