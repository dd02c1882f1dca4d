"""What a run says at its start and its end, what a plan says in advance, and that a quiet run says nothing."""

import dataclasses
import re
import shutil

import jax
import numpy as np
import pytest

import hvq_jax
import train
from hvq_jax.devices.preemption import Preemption
from hvq_jax.quantizers import LatentOptions
from hvq_jax.runs import memory, overview, plan
from hvq_jax.runs.ending import next_command
from hvq_jax.runs.flags import parse_command_line
from hvq_jax.runs.memory import state_bytes, trace, tree_bytes
from hvq_jax.runs.open import open_run
from hvq_jax.runs.options import RunOptions
from hvq_jax.runs.overview import model_in_words
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.training.programs import abstract_variables


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_a_plan_says_what_a_run_would_take_and_writes_nothing(trained_run, tiny_arguments, tmp_path, capsys):
    workdir = tmp_path / "new"
    assert train.main([*tiny_arguments, f"--workdir={workdir}", "--plan"]) == 0
    assert not workdir.exists()
    *block, autoencoder, prior, _, end = capsys.readouterr().out.splitlines()
    trained = TrainedRun.load(trained_run)
    sizes = {"autoencoder": count(trained.variables.params), "prior": count(trained.prior_params)}
    assert len(block) == 8
    assert re.fullmatch(r"device    4 × cpu, JAX \S+", block[0], re.IGNORECASE)
    assert block[1] == (
        "data      Fashion-MNIST: 512 images to train on, 128 for validation, 128 for testing; 28×28×1, 10 classes; "
        "validation taken from train"
    )
    assert block[3] == (  # 49 positions with 16 codes and 16 gains, 4 bits each
        "model     projected latent, 7×7 positions of 16 codes and 16 gains: at most 392 bits per image"
    )
    assert block[4].split() == (
        f"autoencoder of {sizes['autoencoder']:,} parameters, prior of {sizes['prior']:,} parameters".split()
    )
    assert block[5] == "training  autoencoder 6 steps of 64 images, prior 4 steps of 64 latents"
    assert re.fullmatch(r"memory    at least \S+ [KMG]iB of \S+ GiB per device, for .*", block[6])
    assert block[7] == f"output    {workdir}"
    for line, name, steps in ((autoencoder, "autoencoder", 6), (prior, "prior", 4)):
        found = re.fullmatch(rf"{name} +{steps} steps of about .+: .+; memory (\S+) ([KM])iB per device", line)
        num_bytes = float(found[1]) * {"K": 2**10, "M": 2**20}[found[2]]
        options = getattr(trained.options, name)
        stage = trained.autoencoder_stage if name == "autoencoder" else trained.prior_stage(trained.tables)
        assert state_bytes(stage, options) / 2 < num_bytes < 2**30  # half: gradients may be used as they arise
    assert end.endswith(f"nothing was trained, and nothing written to {workdir}.")


def test_a_plan_compiles_nothing_for_a_finished_stage(trained_run, monkeypatch, capsys):
    monkeypatch.setattr(plan, "compiled_steps", None)
    before = files_of(trained_run)
    assert train.main([f"--workdir={trained_run}", "--plan"]) == 0
    assert files_of(trained_run) == before
    *_, autoencoder, prior, total, _ = capsys.readouterr().out.splitlines()
    assert autoencoder == "autoencoder   trained to its last step"
    assert prior == "prior         trained to its last step"
    assert total.startswith("in all        0")


@pytest.fixture
def opened(trained_run):
    config = parse_command_line([f"--workdir={trained_run}"]).config
    with open_run(config, str(trained_run), Preemption(), writes=False) as run:
        yield run


def test_items_are_those_that_a_stage_is_trained_on(opened, monkeypatch):
    monkeypatch.setattr("hvq_jax.runs.image_run.write_tables", lambda *_: None)
    _, latents = opened.prior_stage(TrainedRun.load(opened.workdir))
    for name, split in (("autoencoder", opened.train_split), ("prior", latents.train)):
        items, item = split.read(np.arange(2))[0], opened.blank_stage(name).item
        assert (items.shape, items.dtype) == ((2, *item.shape), item.dtype)


@pytest.mark.parametrize(("name", "item_bytes"), [("autoencoder", 28 * 28), ("prior", 7 * 7 * 2 * 2)])
def test_a_whole_batch_is_on_the_devices_however_many_parts_it_is_seen_in(opened, name, item_bytes):
    fit_options = dataclasses.replace(getattr(opened.options, name), accumulate_steps=4)
    run = dataclasses.replace(opened, options=dataclasses.replace(opened.options, **{name: fit_options}))
    _, num_bytes = overview._sizes(run, name)
    assert num_bytes - state_bytes(run.blank_stage(name), fit_options) == 64 // 4 * item_bytes


@pytest.mark.parametrize(("frozen", "copies_of_decoder"), [((), 5), (("decoder",), 2)])
def test_the_memory_of_a_state_is_that_of_parameters_gradients_moments_and_average(opened, frozen, copies_of_decoder):
    stage = dataclasses.replace(opened.blank_stage("autoencoder"), frozen=frozen)
    options = dataclasses.replace(opened.options.autoencoder, average_decay=0.9)
    params, model_state = trace(stage)
    decoder = tree_bytes(params["decoder"])
    expected = 5 * (tree_bytes(params) - decoder) + copies_of_decoder * decoder + tree_bytes(model_state)
    assert 0 <= state_bytes(stage, options) - expected < 64  # counters of steps


def test_a_run_that_goes_on_on_a_smaller_device_is_refused(trained_run, tmp_path, monkeypatch, capsys):
    copy = shutil.copytree(trained_run, tmp_path / "run")
    before = files_of(copy)
    monkeypatch.setattr(memory, "state_bytes", lambda *_: 2**60)
    assert train.main([f"--workdir={copy}", "--config.autoencoder.num_steps=12"]) == 1
    line = capsys.readouterr().err
    assert line.startswith("error: the training state of the autoencoder takes at least 1,073,741,824.0 GiB, and a ")
    assert line.endswith(" GiB: resume the run on a larger one\n")
    assert files_of(copy) == before
    assert train.main([f"--workdir={copy}", "--plan"]) == 0  # nothing is left to train


def test_each_stage_is_traced_once_where_a_run_goes_on(trained_run, tmp_path):
    copy = shutil.copytree(trained_run, tmp_path / "run")
    config = parse_command_line([f"--workdir={copy}", "--config.autoencoder.num_steps=12"]).config
    abstract_variables.cache_clear()
    with open_run(config, str(copy), Preemption(), writes=False):
        assert abstract_variables.cache_info().misses == 1


def test_a_run_ends_with_what_matters_and_a_quiet_one_in_silence(trained_run, tmp_path, capsys):
    copy = shutil.copytree(trained_run, tmp_path / "a run")
    assert train.main([f"--workdir={copy}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    ending = lines[next(number for number, line in enumerate(lines) if line.startswith("finished in")) :]
    assert ending[0].endswith(f"everything is in '{copy}'")
    assert re.fullmatch(
        r"  autoencoder +MSE 0\.\d{4}, PSNR \d+\.\d\d dB, \d+% of codes in use, on the test split", ending[1]
    )
    assert re.fullmatch(r"  prior +\d+\.\d bits per image, \d\.\d{3} per pixel, on the test split", ending[2])
    assert ending[3].split() == ["pictures", "loss_curves.png,", "reconstructions.png,", "samples.png"]
    assert ending[4] == f"next: hvq_jax.load({str(copy)!r})"
    assert len(ending) == 5
    assert train.main([f"--workdir={copy}", "--quiet"]) == 0
    assert tuple(capsys.readouterr()) == ("", "")


@pytest.mark.parametrize(
    ("spelling", "stages", "has_images", "says"),
    [
        ("python {}.py", ("autoencoder", "prior"), True, "python report.py --workdir='a b'"),
        ("python {}.py", ("autoencoder",), True, "python train.py --workdir='a b' --config.stage=prior"),
        ("hvq-{}", ("prior",), False, "hvq-sample --workdir='a b' --out=latents.npz"),
        ("hvq-{}", ("prior",), True, "hvq-report --workdir='a b'"),
    ],
)
def test_the_next_command_is_called_as_this_one_was(tmp_path, monkeypatch, spelling, stages, has_images, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hvq_jax.command, "_spelling", spelling)
    assert next_command(tmp_path / "a b", stages, has_images=has_images) == says


@pytest.mark.parametrize(
    ("mode", "more", "says"),
    [
        ("vq", {}, "vq latent, 2×3 positions of 512 codes: at most 54 bits per image"),
        (
            "combined",
            {"projection_groups": 4},
            "combined latent, 2×3 positions of 512 codes and 4 × 16 gains: at most 150 bits per image",
        ),
        (
            "frequency",
            {},
            "frequency latent, 2×3 positions of 512 codes and residuals in steps of 0.1: at most 54 bits per image, "
            "residuals not counted",
        ),
    ],
)
def test_the_most_bits_are_those_of_all_that_is_transmitted(mode, more, says):
    assert model_in_words(RunOptions(latent=LatentOptions(mode=mode, **more)), (2, 3)) == says
