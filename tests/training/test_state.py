"""The step that both stages take: optimiser options, averaging, and the same step in every form."""

import itertools
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, strategies as st

from hvq_jax.devices.parallel import Parallel
from hvq_jax.errors import ArgumentError
from hvq_jax.training.learning_rates import Rates, Stretch, each_rate, rates_of
from hvq_jax.training.state import adam, create_state, train_step


def rates_taken(num_steps, **options):
    """With constant gradients Adam moves by its learning rate: the schedule, read from outside."""
    optimizer = adam(Rates(0.1, num_steps, **options).by_step())
    params = jnp.zeros(1)
    state, moved = optimizer.init(params), []
    for _ in range(num_steps):
        updates, state = optimizer.update(jnp.ones(1), state, params)
        moved.append(float(-updates[0]))
    return np.array(moved)


def test_schedules():
    np.testing.assert_allclose(rates_taken(4), np.full(4, 0.1), rtol=1e-4)
    warm = rates_taken(10, warmup_steps=4)
    np.testing.assert_allclose(warm, 0.1 * np.minimum(np.arange(1, 11) / 4, 1), rtol=1e-4)
    cosine = rates_taken(10, schedule="cosine")
    np.testing.assert_allclose(cosine, 0.05 * (1 + np.cos(np.pi * np.arange(10) / 10)), rtol=1e-3)
    both = rates_taken(10, schedule="cosine", warmup_steps=2)
    np.testing.assert_allclose(both, [0.05, *0.05 * (1 + np.cos(np.pi * np.arange(-1, 8).clip(0) / 8))], rtol=1e-3)


@given(st.integers(1, 200), st.integers(0, 1000), st.sampled_from(["constant", "cosine"]))
def test_every_step_learns_the_full_rate_is_reached_and_cosine_falls_from_there(num_steps, warmup_steps, schedule):
    rates = Rates(0.1, num_steps, schedule, warmup_steps).by_step()
    taken = np.broadcast_to(np.float32(rates(np.arange(200))), 200)[:num_steps]
    assert (taken > 0).all()
    assert taken.max() == np.float32(0.1)
    peak = min(warmup_steps, num_steps // 2)
    np.testing.assert_allclose(taken[:peak], 0.1 * np.arange(1, peak + 1) / max(peak, 1), rtol=1e-6)
    assert (np.diff(taken[peak:]) < 0).all() if schedule == "cosine" else (taken[peak:] == np.float32(0.1)).all()
    if schedule == "cosine":
        assert float(rates(num_steps)) == 0.0


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_each_step_has_its_rate_wherever_a_run_is_resumed(schedule):
    stretches = [Stretch(Rates(0.1, 1500, schedule, 200), 900), Stretch(Rates(0.05, 3000, schedule, 200))]
    whole = list(itertools.islice(each_rate(stretches, 0), 3000))
    rates = rates_of(stretches)
    np.testing.assert_allclose(whole[::100], [float(rates(step)) for step in range(0, 3000, 100)], rtol=1e-5)
    for start in (1, 899, 1023, 1024, 2500):
        assert list(itertools.islice(each_rate(stretches, start), 3000 - start)) == whole[start:]


def test_an_unknown_schedule_is_refused_with_the_known_ones():
    with pytest.raises(ArgumentError) as error:
        Rates(0.1, 4, "linear")
    assert str(error.value) == "schedule=linear: choose one of constant, cosine"


def test_clipping_scales_the_whole_gradient():
    gradient = {"a": jnp.array([30.0]), "b": jnp.array([40.0])}
    optimizer = adam(Rates(0.1, 1).by_step(), clip_norm=5.0)
    clipped, _ = optax.clip_by_global_norm(5.0).update(gradient, optax.EmptyState())
    np.testing.assert_allclose([clipped["a"][0], clipped["b"][0]], [3.0, 4.0], rtol=1e-5)
    first_moments = optimizer.update(gradient, optimizer.init(gradient), gradient)[1][1][0].mu
    chex.assert_trees_all_close(first_moments, jax.tree.map(lambda g: 0.1 * g, clipped), rtol=1e-5)


def loss_function(params, model_state, batch, key, axis_name):
    noise = jax.random.normal(key, ())  # equal on all devices
    loss = jnp.mean(jnp.square(batch @ params["w"] - 1.0))
    seen = jnp.sum(jnp.ones(len(batch)))
    if axis_name:
        seen = jax.lax.psum(seen, axis_name)
    return loss, (model_state + seen, {"noise": noise})


BATCH = np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)


def steps(form, count, average_decay=0.0, seed=0):
    parallel = Parallel(form)
    optimizer = adam(Rates(0.1, 100).by_step())
    params = {"w": jnp.arange(3.0)}
    state = parallel.replicate(create_state(params, jnp.float32(0), optimizer, average_decay=average_decay))
    options = {"loss_function": loss_function, "optimizer": optimizer, "seed": seed, "average_decay": average_decay}
    step = parallel.compile(partial(train_step, axis_name=parallel.axis_name, **options), donate_state=True)
    history = []
    for _ in range(count):
        state, report = step(state, parallel.shard(BATCH))
        history.append(jax.device_get((state, report)))
    return history, state


def test_pmap_over_four_devices_is_the_step_of_plain_jit():
    """To the rounding of the mean of four means."""
    (jitted, _), (mapped, state) = steps("jit", 5), steps("pmap", 5)
    chex.assert_trees_all_close(jitted, mapped, rtol=1e-5, atol=1e-6)
    assert mapped[-1][0].step == 5
    assert mapped[-1][0].model_state == 5 * len(BATCH)
    for leaf in jax.tree.leaves(state):
        shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        assert len(shards) == 4
        for shard in shards[1:]:
            np.testing.assert_array_equal(shard, shards[0])


@pytest.mark.parametrize("form", ["jit", "pmap"])
def test_the_step_is_traced_once(form):
    chex.clear_trace_counter()
    parallel = Parallel(form)
    optimizer = adam(Rates(0.1, 100).by_step())
    state = parallel.replicate(create_state({"w": jnp.zeros(3)}, jnp.float32(0), optimizer, average_decay=0.0))
    counted = chex.assert_max_traces(loss_function, n=1)
    options = {"loss_function": counted, "optimizer": optimizer, "seed": 0}
    step = parallel.compile(partial(train_step, axis_name=parallel.axis_name, **options), donate_state=True)
    for _ in range(3):
        state, _ = step(state, parallel.shard(BATCH))
    assert int(state.step) == 3


def test_the_key_of_a_step_follows_from_the_seed_and_the_step_alone():
    noise = [float(report.metrics["noise"]) for _, report in steps("pmap", 3)[0]]
    assert len(set(noise)) == 3
    assert noise == [float(report.metrics["noise"]) for _, report in steps("pmap", 3)[0]]
    assert noise[0] != float(steps("pmap", 1, seed=1)[0][0][1].metrics["noise"])


def test_the_moving_average_of_the_parameters_is_what_evaluation_uses():
    history, _ = steps("jit", 3, average_decay=0.9)
    average = np.arange(3.0)
    for step, (state, _) in enumerate(history):
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * state.params["w"]
        np.testing.assert_allclose(state.average_params["w"], average, rtol=1e-5)
        np.testing.assert_array_equal(state.eval_params["w"], state.average_params["w"])
    plain = steps("jit", 1)[0][0][0]
    assert plain.average_params is None
    assert plain.eval_params is plain.params


def test_shard_and_gather_are_inverse():
    parallel = Parallel("pmap")
    cut = parallel.shard(BATCH)
    assert cut.shape == (4, 2, 3)
    np.testing.assert_array_equal(parallel.gather(cut), BATCH)
    double = parallel.compile(lambda state, x: state * x, sharded_result=True)
    np.testing.assert_array_equal(parallel.gather(double(jnp.float32(2), cut)), 2 * BATCH)
