"""Train a cell again and observe its codes in every step, to test the hypotheses about its peaks.

    python -m studies.stability.probe --manual_dir=/usr/share/datasets/fashion-mnist --cell=gradient-both-1400-seed_0

Writes `studies/stability/results/probe-CELL.json`. Only for codebooks trained by gradient.
"""

import argparse
import contextlib
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from hvq_jax import autoencoder, latents
from hvq_jax.autoencoder import Autoencoder, Variables
from hvq_jax.command import exit_status
from hvq_jax.data.datasets import open_dataset
from hvq_jax.data.pipeline import train_batches
from hvq_jax.devices.parallel import Parallel
from hvq_jax.devices.preemption import Preemption
from hvq_jax.errors import UserError
from hvq_jax.files import read_json, write_json
from hvq_jax.images import to_float
from hvq_jax.runs.flags import parse_command_line
from hvq_jax.runs.options import from_dict
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.loop import RunContext, first_state
from hvq_jax.training.state import TrainState, train_step
from studies import find_results
from studies.cells import Cell
from studies.comparison import name_place
from studies.run_metrics import FIRST, peaks
from studies.stability.cells import cells

_SHOWN = 10  # number of worst steps reported


class WorstStep(TypedDict):
    """A step with one of the largest losses, relative to those before it."""

    step: int
    loss_ratio: float
    gradient_norm_before: float
    reassigned_before: float
    woken_in_5_steps_before: int
    largest_mean_gain: float
    largest_step_before_in_learning_rates: float


class Probe(TypedDict):
    """The content of probe-CELL.json; besides, the numbers of `summary`."""

    devices: str
    jax: str
    steps: int
    worst_steps: list[WorstStep]


def read_probe(path: Path) -> dict[str, Any]:
    """Return the result of a probe; raise UserError if its file is damaged."""
    advice = "delete it, and run studies.stability.probe again"
    found = dict(read_json(path, Probe, advice=advice) or {})
    if not found.get("worst_steps"):
        raise UserError(f"{path} has no worst steps: {advice}")
    return found


def observe(model: Autoencoder, before: TrainState, after: TrainState, images: jax.Array) -> dict[str, jax.Array]:
    """Return the change of the codes in a step on `images` `[B, H, W, C]`, using the encoder outputs of that step.

    Returns:
        `counts`, `gain` (mean alpha) and `moved` (the length of the step), each `[K]`; `towards` `[K]`, the cosine
        between the part of a code's step orthogonal to the code and the mean of r = z_e - P of its vectors, negative
        where the code turns away from them; and `reassigned` `[]`, the share of vectors that the moved codes would
        assign differently.
    """
    old, new = (state.params["quantizer"]["codes"] for state in (before, after))
    z_e, _ = autoencoder.encode_training(model, before.params, before.model_state, images)
    vectors = z_e.reshape(-1, z_e.shape[-1])
    nearest = partial(autoencoder.quantize, model)
    indices = nearest(Variables(before.params, before.model_state), vectors).indices
    moved_indices = nearest(Variables(after.params, before.model_state), vectors).indices

    def mean_by_code(values: jax.Array) -> jax.Array:
        sums = jnp.zeros((len(old), *values.shape[1:])).at[indices].add(values)
        return sums / jnp.maximum(counts, 1).reshape(-1, *[1] * (values.ndim - 1))

    counts = jnp.zeros(len(old), jnp.int32).at[indices].add(1)
    gains = latents.gain(vectors, old[indices])
    rest = mean_by_code(vectors - gains[:, None] * old[indices])
    step = new - old
    across = step - latents.gain(step, old)[:, None] * old
    lengths = jnp.linalg.norm(across, axis=-1) * jnp.linalg.norm(rest, axis=-1)
    return {
        "counts": counts,
        "gain": mean_by_code(gains),
        "moved": jnp.linalg.norm(step, axis=-1),
        "towards": jnp.sum(across * rest, -1) / jnp.maximum(lengths, 1e-20),
        "reassigned": jnp.mean(indices != moved_indices, dtype=jnp.float32),
    }


def watched(cell: Cell, arguments: list[str], num_steps: int) -> tuple[dict[str, np.ndarray], float]:
    """Return loss and gradient norm `[N]`, and `observe` `[N, ...]`, of the first N steps; and the learning rate."""
    run_options = from_dict(parse_command_line([*cell.arguments, *arguments, "--workdir=not_used"]).config)
    dataset = open_dataset(run_options.data)
    model = run_options.autoencoder_model(dataset.image_shape)
    stage = AutoencoderStage(model, dataset.validation.read(np.arange(1))[0])
    options, seed = run_options.autoencoder, run_options.seed
    run = RunContext(Path(), seed, Parallel("jit"), Preemption())
    state = first_state(stage, dataset.train, options=options, run=run)
    optimizer = options.make_optimizer(options.num_steps)

    @jax.jit
    def step(state: TrainState, batch: Any) -> tuple[TrainState, dict[str, jax.Array]]:
        after, report = train_step(state, batch, loss_function=stage.loss, optimizer=optimizer, seed=seed)
        seen = observe(model, state, after, to_float(batch.items))
        return after, {"loss": report.loss, "gradient_norm": report.gradient_norm, **seen}

    seen = []
    batches = train_batches(dataset.train, batch_size=options.batch_size, seed=seed)
    with contextlib.closing(batches):
        for batch, number in zip(batches, range(1, num_steps + 1), strict=False):
            state, metrics = step(state, batch)
            seen.append(jax.device_get(metrics))
            if number % 100 == 0:
                print(f"step {number}/{num_steps}  loss {seen[-1]['loss']:.4f}", flush=True)
    return {key: np.stack([metrics[key] for metrics in seen]) for key in seen[0]}, options.learning_rate


def wakings(counts: np.ndarray, asleep: int = FIRST) -> np.ndarray:
    """Return where a code is assigned after `asleep` steps without: `[N, K]` bool, False in the first of them."""
    used = np.concatenate([np.zeros((1, counts.shape[1])), np.cumsum(counts, axis=0)])
    before = np.zeros_like(counts, bool)
    before[asleep:] = used[asleep:-1] == used[: -asleep - 1]
    return before & (counts > 0)


def summary(seen: dict[str, np.ndarray], learning_rate: float) -> dict[str, Any]:
    """Return the quantities that the hypotheses predict, from step 200 on."""
    ratios, woken = np.concatenate([np.ones(FIRST), peaks(seen["loss"])]), wakings(seen["counts"])
    used = seen["counts"] > 0
    used[:FIRST] = False
    high, low = used & (seen["gain"] > 2), used & (seen["gain"] <= 2)
    steps = seen["moved"] / learning_rate
    after_waking = np.zeros(len(ratios), bool)
    for i in np.flatnonzero(woken.any(1)):
        after_waking[i + 1 : i + 6] = True
    judged = np.arange(len(ratios)) >= FIRST
    worst = [int(i) for i in np.argsort(-np.where(judged, ratios, 0))[:_SHOWN]]
    return {
        "codes_ever_used": int((seen["counts"].sum(0) > 0).sum()),
        "gain_above_2": _share(high, high | low),
        "turned_away_where_gain_above_2": _share(high & (seen["towards"] < 0), high),
        "turned_away_where_gain_below_2": _share(low & (seen["towards"] < 0), low),
        "wakings": int(woken.sum()),
        "step_of_woken_code_in_learning_rates": _median(steps[woken]),
        "step_of_used_code_in_learning_rates": _median(steps[used & ~woken]),
        "largest_step_of_woken_code_in_learning_rates": float(steps[woken].max()) if woken.any() else None,
        "worst_loss_ratio_within_5_steps_of_a_waking": _worst(ratios[judged & after_waking]),
        "worst_loss_ratio_elsewhere": _worst(ratios[judged & ~after_waking]),
        "reassigned_share_median": _median(seen["reassigned"][judged]),
        "reassigned_share_worst": _worst(seen["reassigned"][judged]),
        "correlation_of_reassignment_with_next_loss_ratio": float(
            np.corrcoef(seen["reassigned"][FIRST:-1], ratios[FIRST + 1 :])[0, 1]
        ),
        "correlation_of_gradient_norm_with_next_loss_ratio": float(
            np.corrcoef(np.log(seen["gradient_norm"][FIRST:-1]), ratios[FIRST + 1 :])[0, 1]
        ),
        "worst_steps": [
            {
                "step": i + 1,
                "loss_ratio": float(ratios[i]),
                "gradient_norm_before": float(seen["gradient_norm"][i - 1]),
                "reassigned_before": float(seen["reassigned"][i - 1]),
                "woken_in_5_steps_before": int(woken[i - 5 : i].sum()),
                "largest_mean_gain": float(seen["gain"][i].max()),
                "largest_step_before_in_learning_rates": float(steps[i - 1].max()),
            }
            for i in worst
        ],
    }


def _share(part: np.ndarray, whole: np.ndarray) -> float | None:
    return float(part.sum() / whole.sum()) if whole.any() else None


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if values.size else None


def _worst(values: np.ndarray) -> float | None:
    return float(values.max()) if values.size else None


def main(arguments: list[str]) -> None:
    """Probe one cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manual_dir", required=True, help="the published files of Fashion-MNIST")
    parser.add_argument("--data_dir", default="runs/stability/data", help="folder of prepared data")
    parser.add_argument("--cell", required=True, help="name of the cell")
    parser.add_argument("--steps", type=int, default=0, help="number of steps; 0: all")
    options = parser.parse_args(arguments)
    by_name = {cell.name: cell for cell in cells() if cell.labels["codebook"].startswith("gradient")}
    if options.cell not in by_name:
        raise UserError(f"--cell={options.cell}: choose one of {', '.join(by_name)}")
    if options.steps and options.steps <= 2 * FIRST:
        raise UserError(f"--steps={options.steps}: must be above {2 * FIRST}, since the first {FIRST} are not checked")
    data = [f"--config.data.manual_dir={options.manual_dir}", f"--config.data.data_dir={options.data_dir}"]
    num_steps = options.steps or int(by_name[options.cell].labels["steps"].replace(",", ""))
    result = {"steps": num_steps, **name_place(), **summary(*watched(by_name[options.cell], data, num_steps))}
    path = find_results("stability") / f"probe-{options.cell}.json"
    write_json(path, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
