"""A run that starts from the weights of another: what fits is taken, the rest is listed, frozen parts never move."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import train
from hvq_jax.data.datasets import ImageDataset, Split
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.runs import open as opening
from hvq_jax.runs.flags import parse_command_line
from hvq_jax.runs.init_from import start_from
from hvq_jax.runs.options import InitOptions, RunOptions
from hvq_jax.runs.trained import TrainedRun
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.loop import first_state
from hvq_jax.training.prior_stage import PriorStage
from tests.workdirs import digests, error_of

CLASSES = ("cat", "dog", "owl")


def start(source, changes=None, *, only=None, freeze=None, image_shape=(28, 28, 1), classes=CLASSES):
    """Return what a run with the options of `source` and these `changes` starts from."""
    options = TrainedRun.load(source).options
    for key, value in (changes or {}).items():
        section, name = key.split(".")
        options = dataclasses.replace(
            options, **{section: dataclasses.replace(getattr(options, section), **{name: value})}
        )
    options = dataclasses.replace(options, init_from=InitOptions(str(source), only), freeze=freeze)
    model = options.autoencoder_model(image_shape)
    prior = options.prior_model(num_classes=len(classes), grid=model.latent_shape)
    stages = [AutoencoderStage(model, np.zeros((0, *image_shape), np.uint8)), PriorStage(prior, model.latent_shape)]
    return start_from(options, stages, classes), stages


def test_everything_fits_the_same_model_on_images_of_another_size(trained_run):
    source = TrainedRun.load(trained_run)
    found, stages = start(trained_run, image_shape=(40, 24, 1), classes=source.class_names)
    assert [line.partition("init_from: ")[2] for line in found.lines] == [
        f"{trained_run}, the autoencoder of step 6, the prior of step 4",
        "encoder: taken",
        "decoder: taken",
        "quantizer: taken",
        "prior: taken",
    ]
    assert found.given["autoencoder"].has_codes
    fresh = jax.eval_shape(stages[0].init, jax.random.key(0))
    filled = found.given["autoencoder"].fill(*fresh)
    jax.tree.map(np.testing.assert_array_equal, filled, (source.variables.params, source.variables.state))


def line_of(found, part):
    return next(line for line in found.lines if line.startswith(f"init_from: {part}: "))


def test_other_classes_start_anew_in_the_prior(trained_run):
    found, _ = start(trained_run)
    assert "class_embedding (embedding 10×" in line_of(found, "prior")
    assert " there, 3×" in line_of(found, "prior")
    assert "init_from: the prior knows other classes: T-shirt/top, Trouser, Pullover, Dress and 6 more" in found.lines


def test_another_number_of_codes_starts_a_new_codebook(trained_run):
    found, _ = start(trained_run, {"latent.num_codes": 32})
    assert line_of(found, "quantizer").startswith("init_from: quantizer: not taken, it starts anew: ")
    assert "frequency 16 float32 there, 32 float32 here" in line_of(found, "quantizer")
    assert line_of(found, "encoder") == "init_from: encoder: taken"
    assert not found.given["autoencoder"].has_codes
    assert not any("quantizer" in path for path in found.given["autoencoder"].arrays)
    assert "init_from: other options there: latent.num_codes=16 (32 here)" in found.lines


def test_another_factor_takes_the_layers_that_there_are(trained_run):
    found, _ = start(trained_run, {"network.factor": 8}, image_shape=(32, 32, 1))
    line = line_of(found, "encoder")
    assert "3 of 5 layers taken; these start anew: " in line
    assert "conv_down_2 (bias absent there, 8 float32 here)" in line


def test_colour_starts_only_the_first_and_the_last_layer_anew(trained_run):
    found, _ = start(trained_run, image_shape=(28, 28, 3))
    assert "these start anew: conv_in (kernel 4×4×1×8 float32 there, 4×4×3×8 float32 here)" in line_of(found, "encoder")
    assert "these start anew: conv_out (" in line_of(found, "decoder")
    assert not any("conv_in" in path for path in found.given["autoencoder"].arrays)  # nor its bias, which would fit


def test_another_latent_takes_all_but_what_the_prior_lacks(trained_run):
    found, _ = start(trained_run, {"latent.mode": "vq"}, only="encoder,decoder,quantizer")
    assert [line_of(found, part) for part in ("encoder", "decoder", "quantizer")]
    assert not any("prior" in line for line in found.lines[1:])
    assert set(found.given) == {"autoencoder"}
    assert "init_from: other options there: latent.mode=projected (vq here)" in found.lines


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"changes": {"latent.dim": 4, "prior.width": 4}, "only": "quantizer"}, "nothing in it fits this run: quantiz"),
        (
            {"freeze": "encoder", "image_shape": (28, 28, 3)},
            "^freeze=encoder: needs all of the encoder, but enc",
        ),
    ],
)
def test_what_cannot_be_started_from_is_one_line(trained_run, options, says):
    with pytest.raises(ArgumentError, match=says) as error:
        start(trained_run, **options)
    assert "\n" not in str(error.value)


def test_parts_have_to_be_there(trained_run, tmp_path):
    copy = shutil.copytree(trained_run, tmp_path / "run")
    shutil.rmtree(copy / "checkpoints" / "prior")
    with pytest.raises(ArgumentError, match=r"^init_from\.only=prior: there is no prior in"):
        start(copy, only="prior")
    found, _ = start(copy)
    assert set(found.given) == {"autoencoder"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"only": "encodr"}, r"^only=encodr: there is no part 'encodr': choose of encoder, decoder, quantizer, prior"),
        ({"only": "encoder", "run": None}, "^only=encoder: is of a run to start from: choose run=FOLDER"),
    ],
)
def test_options_name_parts(options, says):
    with pytest.raises(ArgumentError, match=says):
        InitOptions(**{"run": "a", **options})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"freeze": "prior"}, "^freeze=prior: there is no part 'prior': choose of encoder, decoder, quantizer"),
        ({"freeze": "encoder"}, "^freeze=encoder: the encoder would stay random"),
        ({"freeze": "encoder", "init_from": InitOptions("a", "decoder")}, "^freeze=encoder: the encoder would stay"),
        ({"freeze": "encoder,decoder,quantizer"}, "leaves nothing of the autoencoder to train"),
    ],
)
def test_frozen_parts_are_parts_that_are_taken(options, says):
    with pytest.raises(ArgumentError, match=says):
        RunOptions(**options)


def test_the_flag_is_short_for_its_section():
    arguments = [
        "--config=configs/quickstart.py",
        "--workdir=b",
        "--config.init_from=a",
        "--config.init_from.only=prior",
    ]
    config = parse_command_line(arguments).config
    assert (config.init_from.run, config.init_from.only) == ("a", "prior")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (shutil.rmtree, "no run in "),
        (lambda run: (run / "config.json").write_text("{"), "config.json cannot be read"),
        (lambda run: shutil.rmtree(run / "checkpoints" / "autoencoder"), "no checkpoint of the autoencoder"),
        (lambda run: (run / "format.json").write_text('{"format": 99}'), "was written by another version"),
        (
            lambda run: [path.write_bytes(b"x") for path in run.glob("checkpoints/autoencoder/*/state/**/d/*")],
            "is not usable",
        ),
    ],
)
def test_a_run_that_cannot_be_read_is_one_line_and_nothing_is_written(
    trained_run, tiny_arguments, tmp_path, damage, says, capsys
):
    copy = shutil.copytree(trained_run, tmp_path / "run")
    damage(copy)
    line = error_of([*tiny_arguments, f"--workdir={tmp_path / 'new'}", f"--config.init_from={copy}"], capsys)
    assert line.startswith(f"error: --config.init_from.run={copy}: ")
    assert says in line
    assert not (tmp_path / "new").exists()


@pytest.fixture
def other_data(monkeypatch):
    """Replace the data set by images of another size and classes."""

    def split(count, seed):
        random = np.random.default_rng(seed)
        return Split(random.integers(0, 256, (count, 16, 24, 1), np.uint8), random.integers(0, 3, count, np.int32))

    dataset = ImageDataset(split(64, 0), split(32, 1), split(32, 2), CLASSES)
    monkeypatch.setattr(opening, "open_dataset", lambda _: dataset)


@pytest.mark.usefixtures("other_data", "without_plots")
def test_frozen_parts_stay_bit_for_bit_and_the_others_learn(trained_run, tiny_arguments, tmp_path, capsys):
    run, source = tmp_path / "run", shutil.copytree(trained_run, tmp_path / "source")
    arguments = [
        *tiny_arguments,
        f"--workdir={run}",
        f"--config.init_from={source}",
        "--config.freeze=encoder,quantizer",
        "--config.stage=autoencoder",
        "--config.parallel=jit",
        "--config.autoencoder.average_decay=0.9",
    ]
    assert train.main([*arguments, "--config.autoencoder.num_steps=3"]) == 0
    assert "init_from: quantizer: taken" in capsys.readouterr().out
    shutil.rmtree(source)  # a run that has started does not need it
    assert train.main([f"--workdir={run}", "--config.autoencoder.num_steps=4"]) == 0
    step, leaves = digests(run, "autoencoder")
    assert step == 4
    before, after = TrainedRun.load(trained_run).variables, TrainedRun.load(run).variables
    for part in ("encoder", "quantizer"):
        jax.tree.map(np.testing.assert_array_equal, after.params[part], before.params[part])
    jax.tree.map(np.testing.assert_array_equal, after.state.quantizer, before.state.quantizer)
    jax.tree.map(np.testing.assert_array_equal, *(x.state.batch_stats["encoder"] for x in (after, before)))
    moved = [
        (x.params["decoder"]["conv_out"]["kernel"], x.state.batch_stats["decoder"]["norm_up"]["mean"])
        for x in (after, before)
    ]
    assert all((ours != theirs).all() for ours, theirs in zip(*moved, strict=True))
    optimised = [path for path in leaves if path.startswith(".opt_state")]
    assert any("decoder" in path for path in optimised)
    assert not any("encoder" in path.replace("decoder", "") or "quantizer" in path for path in optimised)


@pytest.mark.usefixtures("other_data")
def test_what_is_taken_is_what_the_first_step_starts_from(trained_run, tiny_arguments, tmp_path, monkeypatch):
    """Codes are kept, not made again from the first batch."""
    seen = []

    def fit(stage, train, *_, options, run, augmentation=None, **__):
        state = first_state(stage, train, options=options, run=run, augmentation=augmentation)
        seen.append(jax.device_get(state))
        raise UserError("seen")

    monkeypatch.setattr("hvq_jax.runs.run.fit_or_find", fit)
    arguments = [*tiny_arguments, f"--workdir={tmp_path / 'run'}", f"--config.init_from={trained_run}"]
    assert train.main([*arguments, "--config.stage=autoencoder", "--config.codebook.init=kmeans"]) == 1
    source, (state,) = TrainedRun.load(trained_run).variables, seen
    assert state.step == 0
    jax.tree.map(np.testing.assert_array_equal, (state.params, state.model_state), (source.params, source.state))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["init_from"]["run"] == str(trained_run)
