"""`train.py` from the outside: what a run leaves, how it goes on, and one clear line for every mistake."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import train
from hvq_jax import autoencoder
from hvq_jax.inference import TrainedRun
from hvq_jax.latents import MODES
from hvq_jax.training.checkpoint import Checkpoints
from hvq_jax.training.config import autoencoder_of, prior_of, validate
from hvq_jax.training.flags import parse_command_line

ROOT = Path(__file__).parents[1]


def digests(workdir, stage):
    """The digests of the newest checkpoint's leaves: equal exactly if the states are, bit for bit."""
    folder = workdir / "checkpoints" / stage
    step = max(int(p.name) for p in folder.iterdir() if p.name.isdigit())
    return step, json.loads((folder / str(step) / "digests" / "metadata").read_text())


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def error_of(arguments, capsys):
    assert train.main(list(arguments)) != 0
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def test_a_run_leaves_everything_it_names(trained_run):
    for name in ("loss_curves.png", "reconstructions.png", "samples.png"):
        assert (trained_run / name).read_bytes().startswith(b"\x89PNG")
    summary = json.loads((trained_run / "summary.json").read_text())
    test = summary["autoencoder"]["test"]
    assert {"mse", "psnr", "ssim", "perplexity", "codes_used", "share_outside", "gain_mean", "gain_std"} <= set(test)
    assert test["share_outside"] == 1.0  # projected: every position
    assert summary["prior"]["test"]["bits_per_pixel"] > 0
    assert "mean gain" in summary["samples"]["continuous_part"]
    assert {(r["stage"], r["split"]) for r in records(trained_run)} == {
        (stage, split) for stage in ("autoencoder", "prior") for split in ("train", "validation")
    }
    for stage in ("autoencoder", "prior"):
        assert list((trained_run / "events" / stage).glob("events.out.tfevents.*"))
        assert digests(trained_run, stage)[0] == {"autoencoder": 6, "prior": 4}[stage]


def test_the_prior_counts_nats_and_bits_of_the_same_thing(trained_run):
    figures = json.loads((trained_run / "summary.json").read_text())["prior"]["test"]
    assert figures["bits_per_image"] == pytest.approx(figures["nats_per_latent"] / 0.6931471805599453)
    assert figures["bits_per_pixel"] == pytest.approx(figures["bits_per_image"] / 784)
    assert figures["loss"] == pytest.approx(figures["nats_per_latent"] / 49)


def test_started_again_a_finished_run_changes_nothing(trained_run, tiny_arguments, capsys):
    before = {p: p.stat().st_mtime_ns for p in trained_run.glob("checkpoints/*/*/digests/*")}
    summary = (trained_run / "summary.json").read_text()
    assert train.main([*tiny_arguments, f"--workdir={trained_run}"]) == 0
    assert "step 1/" not in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in trained_run.glob("checkpoints/*/*/digests/*")} == before
    assert (trained_run / "summary.json").read_text() == summary
    # The run knows its own config.
    assert train.main([f"--workdir={trained_run}"]) == 0


@pytest.fixture(scope="module")
def finished_autoencoder(trained_run):
    return digests(trained_run, "autoencoder"), [r for r in records(trained_run) if r["stage"] == "autoencoder"]


class CrashError(Exception):
    """Stands for a power cut."""


def test_stopped_after_any_checkpoint_it_ends_bit_identical(
    tmp_path, monkeypatch, tiny_arguments, finished_autoencoder
):
    save = Checkpoints.save

    def save_then_crash(self, step, *rest):
        save(self, step, *rest)
        if step == 4:  # between two evaluations, in the middle of everything
            self.wait()
            raise CrashError

    arguments = [*tiny_arguments, "--config.stage=autoencoder", f"--workdir={tmp_path / 'run'}"]
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_then_crash)
        with pytest.raises(CrashError):
            train.main(arguments)
    assert train.main(arguments) == 0
    expected_digests, expected_records = finished_autoencoder
    assert digests(tmp_path / "run", "autoencoder") == expected_digests
    found = [r for r in records(tmp_path / "run")]
    assert [(r["split"], r["step"]) for r in found] == [(r["split"], r["step"]) for r in expected_records]
    for ours, theirs in zip(found, expected_records, strict=True):
        assert ours["loss"] == theirs["loss"]


def test_asked_to_stop_it_saves_and_ends_bit_identical(tmp_path, tiny_arguments, finished_autoencoder):
    workdir = tmp_path / "run"
    arguments = [*tiny_arguments, "--config.stage=autoencoder", f"--workdir={workdir}"]
    arguments.append("--config.autoencoder.checkpoint_every_steps=0")  # what it goes on from, it saved when asked
    command = [sys.executable, "train.py", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "validation at step 3" in line:  # the last moment that is sure to be before the end
            process.send_signal(signal.SIGTERM)
            break
    _, error = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "stopped by SIGTERM, autoencoder saved at step" in error
    assert error.count("\n") == 1
    assert train.main(arguments) == 0
    assert digests(workdir, "autoencoder") == finished_autoencoder[0]


@pytest.mark.parametrize(
    ("mode", "overrides"),
    [("frequency", ["--config.latent.frequent_mass=0.5"]), ("combined", ["--config.parallel=jit"])],
)
def test_the_masked_latents_from_training_to_samples(tmp_path, tiny_arguments, mode, overrides, capsys):
    workdir = tmp_path / mode
    assert train.main([*tiny_arguments, f"--workdir={workdir}", f"--config.latent.mode={mode}", *overrides]) == 0
    assert "outside the mask" in capsys.readouterr().out
    summary = json.loads((workdir / "summary.json").read_text())
    assert 0 < summary["autoencoder"]["test"]["share_outside"] < 1
    run = TrainedRun.load(workdir)
    frequent = np.asarray(autoencoder.frequent(run.model, run.variables.state.frequency))
    assert 0 < frequent.sum() < 16
    drawn = next(run.sample(np.arange(10, dtype=np.int32), seed=1))
    codes = np.asarray(run.variables.codes)[drawn.indices]
    if mode == "frequency":
        np.testing.assert_array_equal(drawn.latents, codes)
    else:
        np.testing.assert_array_equal(run.mean_gains[frequent], 1.0)
        np.testing.assert_array_equal(drawn.latents[frequent[drawn.indices]], codes[frequent[drawn.indices]])
        assert (run.mean_gains[~frequent] != 1.0).any()


def test_a_run_in_bfloat16_learns_and_is_sampled_from(tmp_path, tiny_arguments):
    workdir = tmp_path / "run"
    dtypes = ["--config.network.compute_dtype=bfloat16", "--config.prior.compute_dtype=bfloat16"]
    longer = ["--config.autoencoder.num_steps=40", "--config.autoencoder.eval_every_steps=20"]
    longer += ["--config.autoencoder.checkpoint_every_steps=0", "--config.autoencoder.warmup_steps=0"]
    longer += ["--config.autoencoder.log_every_steps=20", "--config.prior.num_steps=20"]
    longer += ["--config.prior.eval_every_steps=10", "--config.prior.warmup_steps=0"]
    assert train.main([*tiny_arguments, f"--workdir={workdir}", *dtypes, *longer]) == 0
    for stage in ("autoencoder", "prior"):
        losses = [r["loss"] for r in records(workdir) if r["stage"] == stage and r["split"] == "validation"]
        assert len(losses) == 2
        assert losses[1] < losses[0]
    run = TrainedRun.load(workdir)
    assert run.model.compute_dtype == run.prior.compute_dtype == "bfloat16"
    drawn = next(run.sample(np.arange(10, dtype=np.int32), seed=1))
    assert drawn.images.dtype == np.uint8
    assert drawn.latents.dtype == np.float32


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "configs").glob("[!_]*.py")))
def test_every_config_is_valid_in_every_mode(name):
    for mode in MODES:
        line = parse_command_line([f"--config=configs/{name}.py:{mode}", "--workdir=somewhere"])
        config = line.config
        validate(config)
        assert line.workdir == "somewhere"
        assert config.latent.mode == mode
        model = autoencoder_of(config, (28, 28, 1))
        assert model.latent.mode == mode
        assert (model.loss.codebook > 0) == (model.codebook.method == "gradient")
        assert prior_of(config, 10).num_classes == (10 if config.prior.conditional else 0)


def test_the_prior_alone_needs_an_autoencoder(tmp_path, tiny_arguments, capsys):
    line = error_of([*tiny_arguments, f"--workdir={tmp_path / 'run'}", "--config.stage=prior"], capsys)
    assert "no checkpoint of the autoencoder" in line


def damaged_copy(trained_run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(trained_run, copy)
    return copy


def test_damaged_files_of_a_run_get_one_line(trained_run, tmp_path, capsys):
    copy = damaged_copy(trained_run, tmp_path)
    (copy / "latents.npz").write_bytes((copy / "latents.npz").read_bytes()[:100])
    assert "latents.npz cannot be read" in error_of([f"--workdir={copy}"], capsys)
    config = json.loads((copy / "config.json").read_text())
    del config["codebook"]["decay"]
    (copy / "config.json").write_text(json.dumps(config))
    assert "codebook.decay" in error_of([f"--workdir={copy}"], capsys)
    (copy / "config.json").write_text("{")
    assert "config.json cannot be read" in error_of([f"--workdir={copy}"], capsys)


def test_another_data_set_under_the_same_name_is_refused(trained_run, tmp_path, capsys):
    copy = damaged_copy(trained_run, tmp_path)
    dataset = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps({**dataset, "fingerprint": "another"}))
    assert "is not the data set" in error_of([f"--workdir={copy}"], capsys)


def test_a_checkpoint_of_another_model_is_refused_and_kept(trained_run, tmp_path, capsys):
    copy = damaged_copy(trained_run, tmp_path)
    shutil.rmtree(copy / "checkpoints" / "autoencoder")
    shutil.copytree(copy / "checkpoints" / "prior", copy / "checkpoints" / "autoencoder")
    assert "is of another model" in error_of([f"--workdir={copy}"], capsys)
    assert (copy / "checkpoints" / "autoencoder" / "4").is_dir()


def test_another_config_in_the_same_workdir_is_refused(trained_run, tiny_arguments, capsys):
    before = (trained_run / "config.json").read_text()
    changed = ["--config.latent.dim=4", "--config.prior.width=4"]
    line = error_of([*tiny_arguments, *changed, f"--workdir={trained_run}"], capsys)
    assert "latent.dim (8 there, 4 now)" in line
    assert "prior.width (8 there, 4 now)" in line
    assert (trained_run / "config.json").read_text() == before


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--config.latent.mode=nonsense", "choose one of vq, projected, frequency, combined"),
        ("--config.latent.num_frequent=-1", "must be at least 0"),
        ("--config.latent.frequent_mass=1.5", "must be from 0 to 1"),
        ("--config.latent.num_kodes=3", "did you mean --config.latent.num_codes?"),
        ("--config.latent.num_codes=many", "--config.latent.num_codes=many"),
        ("--config.autoencoder.batch_size=2", "does not divide over 4 devices"),
        ("--config.autoencoder.batch_size=18", "does not divide over 4 devices"),
        ("--config.autoencoder.batch_size=9000", "there are only 8000 training images"),
        ("--config.network.compute_dtype=float16", "compute_dtype=float16: choose one of float32, bfloat16"),
        ("--config.prior.compute_dtype=float64", "compute_dtype=float64: choose one of float32, bfloat16"),
        ("--config.stage=half", "choose one of all, autoencoder, prior"),
        ("--config.codebook.method=nonsense", "choose one of gradient, ema, spherical, fsq"),
        ("--config.codebook.init=nonsense", "choose one of uniform, data, kmeans"),
        ("--config.codebook.assignment=nonsense", "choose one of euclidean, cosine, projection"),
        ("--config.latent.estimator=nonsense", "choose one of straight_through, rotation"),
        ("--config.codebook.method=spherical", "needs --config.loss.commitment_target=projection"),
        ("--config.codebook.method=fsq", "needs --config.latent.mode=vq, not projected"),
        ("--config.codebook.depth=5", "must be from 1 to 4"),
        ("--config.codebook.depth=2", "needs --config.latent.mode=vq, not projected"),
        ("--config.latent.projection_groups=3", "must divide --config.latent.dim=8"),
        ("--config.loss.entropy_temperature=0", "must be at least 1e-06"),
        ("--config.data.name=nothing_like_it", "nothing_like_it"),
        ("--config.autoencoder.steps_per_dispatch=0", "must be at least 1"),
        ("--profile=0", "--profile=0"),
        ("--profile=some", "--profile=some"),
        ("--nonsense=1", "nonsense"),
        ("nonsense", "nonsense"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, tiny_arguments, argument, says, capsys):
    assert says in error_of([*tiny_arguments, f"--workdir={tmp_path / 'run'}", argument], capsys)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--config.codebook.depth=2"], "there is no prior over these: choose --config.stage=autoencoder"),
        (["--config.codebook.depth=2", "--config.codebook.method=gradient"], "needs --config.codebook.method=ema"),
        (["--config.codebook.depth=2", "--config.codebook.normalize"], "needs --config.codebook.normalize=False"),
        (["--config.codebook.method=fsq", "--config.codebook.levels=(8,1)"], "must be whole numbers from 2 on"),
        (["--config.codebook.method=fsq", "--config.codebook.depth=2"], "needs --config.codebook.depth=1"),
        (["--config.codebook.method=fsq", "--config.latent.estimator=rotation"], "straight_through, not rotation"),
        (["--config.codebook.assignment=projection"], "choose projected"),
    ],
)
def test_what_makes_no_sense_together_gets_one_line(tmp_path, tiny_arguments, arguments, says, capsys):
    everything = [*tiny_arguments, f"--workdir={tmp_path / 'run'}", "--config.latent.mode=vq", *arguments]
    assert says in error_of(everything, capsys)


def test_scalars_from_training_to_samples(tmp_path, tiny_arguments):
    """K is the product of the levels, for the prior too."""
    workdir = tmp_path / "fsq"
    scalars = ["--config.latent.mode=vq", "--config.codebook.method=fsq", "--config.codebook.levels=(5,3)"]
    assert train.main([*tiny_arguments, f"--workdir={workdir}", *scalars]) == 0
    assert train.main([f"--workdir={workdir}"]) == 0  # JSON has no tuples
    run = TrainedRun.load(workdir)
    assert run.model.latent.num_codes == run.prior.num_codes == 15
    drawn = next(run.sample(np.arange(10, dtype=np.int32), seed=1))
    assert 0 <= drawn.indices.min() <= drawn.indices.max() < 15
    np.testing.assert_array_equal(drawn.latents, np.asarray(autoencoder.codes(run.model, run.variables))[drawn.indices])


def test_gains_in_groups_from_training_to_samples(tmp_path, tiny_arguments):
    workdir = tmp_path / "groups"
    assert train.main([*tiny_arguments, f"--workdir={workdir}", "--config.latent.projection_groups=2"]) == 0
    run = TrainedRun.load(workdir)
    assert run.mean_gains.shape == (16, 2)
    drawn = next(run.sample(np.arange(10, dtype=np.int32), seed=1))
    assert drawn.gains.shape == (*drawn.indices.shape, 2)


def test_residual_codes_from_training_to_reconstructions(tmp_path, tiny_arguments):
    workdir = tmp_path / "residual"
    residual = ["--config.latent.mode=vq", "--config.codebook.depth=2", "--config.stage=autoencoder"]
    assert train.main([*tiny_arguments, f"--workdir={workdir}", *residual]) == 0
    run = TrainedRun.load(workdir)
    drawn = next(run.reconstruct(np.zeros((3, 28, 28, 1), np.uint8)))
    assert drawn.indices.shape == (3, 7, 7, 2)


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
        (["--workdir=x", "--config=configs/nonsense.py"], "there is cifar10, cifar100, default, fashion_mnist"),
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
    for word in ("--workdir", "goes on where it stopped", "num_frequent", "projection_gradient", "commitment_target"):
        assert word in text


def test_an_unwritable_workdir(tmp_path, tiny_arguments, capsys):
    (tmp_path / "file").write_text("not a folder")
    assert "is not writable" in error_of([*tiny_arguments, f"--workdir={tmp_path / 'file' / 'run'}"], capsys)


def test_a_second_run_in_the_same_workdir_is_refused(tmp_path, tiny_arguments, capsys):
    from hvq_jax.training.workdir import locked

    with locked(tmp_path / "run"):
        line = error_of([*tiny_arguments, f"--workdir={tmp_path / 'run'}"], capsys)
    assert "in use by another run" in line


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
    from hvq_jax import experiment
    from hvq_jax.data.datasets import ImageDataset, Split

    odd = Split(np.zeros((16, 28, 30, 1), np.uint8), np.zeros(16, np.int32))
    monkeypatch.setattr(experiment, "load_dataset", lambda **_: ImageDataset(odd, odd, odd, ("one",)))
    line = error_of([*tiny_arguments, f"--workdir={tmp_path / 'run'}"], capsys)
    assert "28×30: both sides must be multiples of 4" in line


def test_a_relative_workdir_and_a_run_that_was_damaged(trained_run, tiny_arguments, tmp_path, monkeypatch, capsys):
    """The newest checkpoint is damaged: the run names it, goes back to the one before, and ends the same."""
    copy = tmp_path / "copy"
    shutil.copytree(trained_run, copy)
    expected = digests(copy, "autoencoder")
    newest = copy / "checkpoints" / "autoencoder" / "6"
    for data in (newest / "state").rglob("d/*"):  # all of them, for a merged one is not read any more
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 255
        data.write_bytes(content)
    arguments = [*tiny_arguments, "--config.stage=autoencoder", f"--workdir={os.path.relpath(copy)}"]
    assert train.main(arguments) == 0
    out = capsys.readouterr().out
    assert f"checkpoint {newest} is not usable" in out
    assert "goes on from the checkpoint of step 5" in out
    assert digests(copy, "autoencoder") == expected
    assert (newest.parent / "bad-6").is_dir()
