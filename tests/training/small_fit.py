"""Tiny trainings in any latent, by this process alone or, run as a program, as one process of several.

python -m tests.training.small_fit FOLDER        (the environment says which process of how many)
"""

import dataclasses
import json
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np

from hvq_jax.autoencoder import Autoencoder, CodebookOptions, LatentOptions, NetworkOptions
from hvq_jax.data.datasets import Split
from hvq_jax.data.pipeline import train_batches
from hvq_jax.devices import cluster
from hvq_jax.devices.parallel import Parallel
from hvq_jax.devices.preemption import Preemption
from hvq_jax.training.autoencoder_stage import AutoencoderStage
from hvq_jax.training.learning_rates import Rates
from hvq_jax.training.loop import RunContext, first_state, fit
from hvq_jax.training.options import FitOptions
from hvq_jax.training.programs import evaluator
from hvq_jax.training.state import adam, create_state, train_step

HANDED_OVER = "handed_over"  # a folder with a run of two steps, for the program to go on with
FROM_DATA = "vq with a codebook trained by gradient from the clusters of the first batches"
# With what devices have to agree on: moving averages, frequencies and the mask from them, and clusters.
TRAININGS = ("combined", FROM_DATA)
STEPS = 4
BATCH_SIZE = 8


def images(count, seed):
    random = np.random.default_rng(seed)
    return Split(random.integers(0, 256, (count, 8, 8, 1), np.uint8), np.zeros(count, np.int32))


TRAIN, VALIDATION = images(32, seed=0), images(11, seed=1)


class QuietStage(AutoencoderStage):
    """The first stage without its images."""

    def show(self, *_):
        """Log nothing."""


def stage_of(training):
    """Return the stage of a latent with a codebook of moving averages, or of one that is trained by gradient."""
    by_gradient = training == FROM_DATA
    latent_options = LatentOptions(mode="vq" if by_gradient else training, num_codes=8, dim=4, num_frequent=4)
    codebook_options = CodebookOptions(learning="gradient", init="kmeans") if by_gradient else CodebookOptions()
    model = Autoencoder((8, 8, 1), NetworkOptions(num_blocks=0), latent_options, codebook_options)
    return QuietStage(model, VALIDATION.items)


def small_training(stage, parallel):
    """Return the metrics of each step of a stage, and its state after the last one."""
    options = fit_options(learning_rate=1e-3, clip_norm=0.0)
    run = RunContext(Path(), seed=0, parallel=parallel, preemption=Preemption())
    state, optimizer = first_state(stage, TRAIN, options=options, run=run), options.make_optimizer(STEPS)
    options = {"loss_function": stage.loss, "optimizer": optimizer, "seed": 0, "axis_name": parallel.axis_name}
    step = parallel.compile(partial(train_step, **options), donate_state=True)
    batches = train_batches(TRAIN, batch_size=BATCH_SIZE, seed=0, **parallel.share)
    steps = []
    for batch, _ in zip(parallel.prefetch(batches), range(STEPS), strict=False):
        state, report = step(state, batch)
        metrics = jax.tree.map(lambda x: np.asarray(x)[None], report.metrics)
        steps.append({"gradient_norm": float(report.gradient_norm), **stage.summarise_steps(metrics)})
    batches.close()
    return steps, state


def evaluated(parallel):
    """Return the metrics of an untrained model."""
    stage, optimizer = stage_of("combined"), adam(Rates(1e-3, STEPS).by_step())
    state = jax.jit(lambda: create_state(*stage.init(jax.random.key(0)), optimizer, average_decay=0.0))()
    sums = evaluator(stage, parallel)(parallel.replicate(state), split=VALIDATION, batch_size=BATCH_SIZE)
    return stage.summarise(sums)


def fit_options(**overrides):
    """Return options of a few steps, with logs, evaluations and checkpoints."""
    defaults = FitOptions(
        batch_size=BATCH_SIZE,
        num_steps=STEPS,
        learning_rate=1e-3,
        schedule="constant",
        warmup_steps=0,
        clip_norm=1.0,
        average_decay=0.0,
        log_every_steps=1,
        eval_every_steps=2,
        checkpoint_every_steps=0,
        keep_checkpoints=3,
        check_replicas_every_steps=1,
        steps_per_dispatch=1,
    )
    return dataclasses.replace(defaults, **overrides)


def small_fit(folder, *, stage=None, form="jit", profile_steps=0, **overrides):
    """Train with checkpoints, logs and validation; return the best state."""
    folder.mkdir(exist_ok=True, parents=True)
    run = RunContext(folder, 0, Parallel(form), Preemption(), profile_steps)
    return fit(stage or stage_of("combined"), TRAIN, VALIDATION, options=fit_options(**overrides), run=run)


def what_a_process_sees(parallel):
    """Return the drift that `Parallel` finds and the results that it collects, inside a cluster."""
    state = {"a": np.ones(3, np.float32), "b": np.arange(2)}
    if jax.process_index() == 1:
        state["a"][1] = np.nextafter(np.float32(1), np.float32(2))  # one bit
    batch = np.arange(8.0)[jax.process_index() * 4 :][:4]
    double = parallel.compile(lambda factor, x: factor * x, sharded_result=True)
    return {
        "drifted": parallel.drifted_devices(parallel.replicate(state)),
        "gathered": parallel.gather(double(parallel.replicate(np.float32(2)), parallel.shard(batch))).tolist(),
    }


def main(folder):
    cluster.join()
    parallel = Parallel("pmap")
    seen = {
        "trained": {training: small_training(stage_of(training), parallel)[0] for training in TRAININGS},
        "evaluated": evaluated(parallel),
        **what_a_process_sees(parallel),
    }
    (folder / f"process_{jax.process_index()}.json").write_text(json.dumps(seen))
    small_fit(folder / HANDED_OVER, form="pmap")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
