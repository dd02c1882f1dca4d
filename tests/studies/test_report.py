"""The cells of the report at full size, and of its trials."""

import pytest

from hvq_jax.runs.flags import parse_command_line
from hvq_jax.runs.options import from_dict
from hvq_jax.training.dispatch import Schedule
from studies.report.cells import NUM_POINTS, PRESETS, cells, name_size

COMPARED = [("vq", None), ("projected", None), *(("frequency", s) for s in (502, 412, 312)), ("combined", 312)]


def parse_config(cell, tmp_path):
    config = parse_command_line([*cell.arguments, f"--workdir={tmp_path}"]).config
    from_dict(config)
    return config


def test_the_first_cells_are_those_of_the_report(tmp_path):
    configs = [parse_config(cell, tmp_path) for cell in cells()[: 2 * len(COMPARED)]]
    seen = [
        (c.latent.mode, c.latent.num_frequent if c.latent.mode in ("frequency", "combined") else None) for c in configs
    ]
    assert seen == COMPARED * 2
    for config in configs:
        options = config.autoencoder
        assert (config.latent.dim, config.latent.num_codes, options.batch_size, options.num_epochs) == (
            256,
            512,
            128,
            100,
        )
        assert (config.data.name, config.data.image_size, config.stage, config.seed) == (
            "fashion_mnist",
            0,
            "autoencoder",
            0,
        )
    reference, default = configs[: len(COMPARED)], configs[len(COMPARED) :]
    assert {(c.loss.commitment_weight, c.autoencoder.learning_rate) for c in reference} == {(1.0, 2e-4)}
    assert {(c.loss.commitment_weight, c.autoencoder.learning_rate) for c in default} == {(0.25, 3e-3)}
    assert len({str(c.codebook) for c in reference}) == len({str(c.codebook) for c in default}) == 1
    assert str(reference[0].codebook) != str(default[0].codebook)


@pytest.mark.parametrize("preset", PRESETS)
def test_each_preset_and_seed_has_twelve_numbers_of_frequent_codes_and_four_masses(preset, tmp_path):
    by_seed = {0: [], 1: [], 2: []}
    for cell in cells():
        if cell.labels["preset"] == preset:
            by_seed[cell.seed].append(cell)
    first, *others = ({(cell.config, cell.options) for cell in found} for found in by_seed.values())
    assert others == [first, first]
    configs = [parse_config(cell, tmp_path).latent for cell in by_seed[0] if cell.config.endswith("frequency")]
    assert len({c.num_frequent for c in configs if not c.frequent_mass} | {512}) == 12  # S = K is vq
    assert 0 in {c.num_frequent for c in configs}
    assert len({c.frequent_mass for c in configs} - {None}) == 4


@pytest.mark.parametrize("num_epochs", [1, 2, 5, 20, 100])
def test_whole_dispatches_are_taken_between_logs(num_epochs, tmp_path):
    cell = cells(dim=32, num_epochs=num_epochs)[0]
    config = parse_config(cell, tmp_path)
    options, every, num_steps = config.autoencoder, cell.log_every_steps, 429 * num_epochs
    assert (config.latent.dim, options.num_epochs) == (32, num_epochs)
    schedule = Schedule(num_steps, every, options.eval_every_steps, 0, options.check_replicas_every_steps, every)
    taken = list(schedule.dispatches(0))
    assert taken.count(every) == num_steps // every <= NUM_POINTS
    assert len(taken) - taken.count(every) < every  # only where the last interval is shorter
    assert sum(map(schedule.logs, range(1, num_steps + 1))) <= NUM_POINTS
    least = min(max(num_epochs, 5), 20)
    assert least <= sum(map(schedule.evaluates, range(1, num_steps + 1))) <= least + 2


def test_every_size_has_a_folder_of_its_own():
    assert (name_size(256, 100), name_size(32, 1)) == ("", "small")
    assert len({name_size(dim, epochs) for dim in (32, 256) for epochs in (1, 2, 100)}) == 6
