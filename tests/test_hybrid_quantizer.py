"""A quantizer in a network of one's own, as a Linen module: every method, alone, padded, on devices, and stored."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import linen as nn, serialization
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

from hvq_jax import autoencoder
from hvq_jax.errors import ArgumentError
from hvq_jax.hybrid_quantizer import HybridQuantizerOptions
from hvq_jax.linen import HybridQuantizer
from hvq_jax.quantizers import LEARNING_RULES, QUANTIZERS
from tests.methods import METHODS as MODELS

K, D = 8, 4
RNG = np.random.default_rng(0)
Z_E = RNG.normal(size=(8, 5, D)).astype(np.float32)
MASK = RNG.random((8, 5)) < 0.7
PADDED = np.where(MASK[..., None], Z_E, np.nan).astype(np.float32)
KEY = jax.random.key(3)


def every_method():
    """Yield the options of every registered family, and of every learning rule and initialisation of those with one."""
    for family, kind in QUANTIZERS.items():
        needed = {"family": family, "mode": "vq", **({"depth": 2} if "depth" in kind.option_names else {})}
        if "learning" not in kind.option_names:
            yield family, needed
        for learning in LEARNING_RULES if "learning" in kind.option_names else ():
            estimator = {"estimator": "diveq"} if learning == "diveq" else {}
            yield f"{family}, {learning}", {**needed, "learning": learning, **estimator}


METHODS = {
    **dict(every_method()),
    "projected": {"dim_in": 6},
    "projected, in groups": {"projection_groups": 2, "codebook_init": "kmeans"},
    "frequency": {"mode": "frequency", "num_frequent": 3},
    "combined, entropy": {"mode": "combined", "num_frequent": 3, "entropy_weight": 0.1},
}


def made(options, **others):
    return HybridQuantizer(**{"dim": D, "num_codes": K, **options, **others})


def inputs(options, z_e=Z_E):
    return np.concatenate([z_e, z_e], -1)[..., :6] if "dim_in" in options else z_e


# Compiled once for each quantizer and shape: uncompiled, each of hundreds of operations would be.
@functools.partial(jax.jit, static_argnums=0)
def initial(quantizer, z_e):
    return quantizer.init(jax.random.key(0), z_e)


@functools.partial(jax.jit, static_argnums=0)
def apply(quantizer, *arguments):
    return quantizer.apply(*arguments)


@functools.partial(jax.jit, static_argnums=0)
def step(quantizer, variables, z_e, mask=None, key=KEY):
    """Return the gradients, the result and the variables after a training step."""

    def loss(params):
        result, updates = quantizer.apply(
            {**variables, "params": params}, z_e, mask, train=True, mutable=["codebook"], rngs={"codebook": key}
        )
        # Something that depends on each channel of the latent.
        return result.loss + jnp.mean(result.z_bar * (jnp.arange(z_e.shape[-1]) - 1.5)), (result, updates)

    params = variables.get("params", {})
    gradients, (result, updates) = jax.grad(loss, has_aux=True)(params)
    return gradients, result, {"params": params, **updates}


@functools.partial(jax.jit, static_argnums=0)
def first_variables(quantizer, z_e, mask):
    """Return the variables after a first step, without the gradients that `step` has."""
    variables = quantizer.init(jax.random.key(0), z_e)
    _, updates = quantizer.apply(variables, z_e, mask, train=True, mutable=["codebook"], rngs={"codebook": KEY})
    return {**variables, **updates}


def started(options, z_e=Z_E, mask=None):
    """Return a quantizer and its variables after a first step."""
    quantizer = made(options)
    return quantizer, first_variables(quantizer, inputs(options, z_e), mask)


@functools.partial(jax.jit, static_argnums=0)
def there_and_back(quantizer, variables, z_e, mask):
    """Return the result of a call, and the latent of the codes of the same vectors."""
    kept = quantizer.apply(variables, z_e, mask, method="codes_of")
    z_bar = quantizer.apply(variables, kept.indices, kept.gains, kept.residuals, method="from_codes")
    return quantizer.apply(variables, z_e, mask), z_bar


def assert_close(ours, theirs, **tolerance):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, **{"rtol": 1e-4, "atol": 1e-5, **tolerance}), ours, theirs
    )


@pytest.mark.parametrize("name", METHODS)
def test_codes_give_the_latent_back_and_padding_is_blank(name):
    quantizer, variables = started(METHODS[name], PADDED, MASK)
    z_e = inputs(METHODS[name], PADDED)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))
    assert variables["codebook"]["steps"] == 1
    result, z_bar = there_and_back(quantizer, variables, z_e, MASK)
    assert result.z_bar.shape == z_e.shape
    assert (result.z_bar[~MASK] == 0).all()
    assert (result.indices[~MASK] == -1).all()
    assert (result.indices[MASK] >= 0).all()
    assert np.isfinite(result.loss)
    assert (result.metrics.counts.sum(-1) == MASK.sum()).all()
    assert_close(z_bar, result.z_bar)


@pytest.mark.parametrize("name", ["codebook, ema", "codebook, gradient", "combined, entropy", "projected", "residual"])
def test_a_padded_step_is_the_step_on_the_other_positions(name):
    options = {**METHODS[name], "codebook_init": "uniform", "revive_below": 0.0}
    if options.get("learning") == "gradient":
        del options["revive_below"]
    quantizer = made(options)
    variables = initial(quantizer, inputs(options))
    padded = step(quantizer, variables, inputs(options, PADDED), MASK)
    alone = step(quantizer, variables, inputs(options, Z_E)[MASK])
    assert_close(padded[2], alone[2])
    for field in ("loss", "losses", "metrics"):
        assert_close(getattr(padded[1], field), getattr(alone[1], field))
    nothing = step(quantizer, variables, inputs(options, PADDED), np.zeros_like(MASK))
    assert_close(nothing[2], {"params": {}, **variables}, rtol=0, atol=0)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(nothing[0]))
    assert nothing[1].loss == 0


@pytest.mark.parametrize("name", ["averages from clusters, by cosine, entropy", "gradient", "directions by line"])
def test_the_loss_is_what_the_autoencoder_has_apart_from_the_reconstruction(name):
    model = MODELS[name]
    images = jax.random.uniform(jax.random.key(1), (4, 8, 8, 1), minval=-1.0)

    @jax.jit
    def of_autoencoder(variables):
        loss, (_, metrics) = autoencoder.training_loss(model, variables.params, variables.state, images, KEY)
        z_e, _ = autoencoder.encode_training(model, variables.params, variables.state, images)
        return loss - metrics.losses.reconstruction, z_e

    variables = jax.jit(functools.partial(autoencoder.init, model))(jax.random.key(0))
    loss, z_e = of_autoencoder(variables)
    sections = (model.latent_options, model.codebook_options, model.loss)
    options = {key: value for section in sections for key, value in vars(section).items() if key != "rule"}
    codes = options.pop("init")
    quantizer = HybridQuantizer(**options, codebook_init="uniform")  # so that the key is not needed for a start
    own = initial(quantizer, z_e)
    state = {"frequency": variables.state.quantizer.frequency, "steps": jnp.zeros((), jnp.int32)}
    if variables.state.quantizer.learned is not None:
        state["learned"] = serialization.to_state_dict(variables.state.quantizer.learned)
    assert jax.tree.structure(state) == jax.tree.structure(own["codebook"]), codes
    params = variables.params["quantizer"]
    # Revived codes are drawn by another key, so none may be: the averages have counts.
    if "learned" in state:
        state["learned"]["counts"] = jnp.ones_like(state["learned"]["counts"])
        learned = dataclasses.replace(variables.state.quantizer.learned, counts=state["learned"]["counts"])
        counted = dataclasses.replace(variables.state.quantizer, learned=learned)
        with_counts = dataclasses.replace(variables.state, quantizer=counted)
        loss, z_e = of_autoencoder(dataclasses.replace(variables, state=with_counts))
    _, result, _ = step(quantizer, {"params": params, "codebook": state}, z_e)
    np.testing.assert_allclose(result.loss, loss, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("learning", "init"), [("gradient", "data"), ("gradient", "kmeans"), ("ema", "kmeans")])
def test_codes_start_from_the_first_batch_of_training_and_only_from_it(learning, init):
    quantizer = made({"mode": "vq", "learning": learning, "codebook_init": init})
    variables = initial(quantizer, Z_E)
    for _ in range(2):  # padding alone is no batch
        variables = step(quantizer, variables, PADDED, np.zeros_like(MASK))[2]
    gradients, result, after = step(quantizer, variables, Z_E, np.ones_like(MASK))
    codes = quantizer.apply(after, method="codes") if learning == "gradient" else np.asarray(result.z_bar)
    if init == "data":
        distances = np.abs(codes[:, None] - Z_E.reshape(-1, D)).sum(-1)
        assert (distances.min(axis=1) < 1e-5).all()
    assert result.metrics.share_used == 1.0
    if learning == "gradient":
        assert np.abs(gradients["codes"]).max() > 0
        other = step(quantizer, after, Z_E + 9.0, np.ones_like(MASK))[2]
        np.testing.assert_array_equal(quantizer.apply(other, method="codes"), codes)


def test_without_training_nothing_changes_and_no_key_is_needed():
    quantizer, variables = started({"mode": "combined", "num_frequent": 3})
    evaluate = jax.jit(functools.partial(quantizer.apply, mutable=["codebook"]))
    result, updates = evaluate(variables, Z_E)
    assert_close(updates["codebook"], variables["codebook"], rtol=0, atol=0)
    assert result.metrics.revived == 0
    fresh = jax.jit(functools.partial(quantizer.init, train=True))(
        jax.random.key(0), Z_E
    )  # init is no step, and needs no stream
    assert fresh["codebook"]["steps"] == 0


# One with moving averages that start from clusters, one with parameters that start from data.
SHARDED = {
    "clusters": {"mode": "combined", "num_frequent": 3, "codebook_init": "kmeans", "entropy_weight": 0.1},
    "gradient": {"mode": "projected", "learning": "gradient", "dim_in": 6},
}


def two_steps(function, variables, *arguments):
    return function(function(variables, *arguments)[2], *arguments)


def by_pmap(options, variables, z_e, keys):
    def device_step(variables, z_e, mask, key):
        gradients, result, after = step(made(options, axis_name="d"), variables, z_e, mask, key)
        return jax.lax.pmean((gradients, result.loss), "d"), result, after

    mapped = jax.pmap(device_step, "d", in_axes=(None, 0, 0, 0), out_axes=(None, 0, None))
    z_e, mask = z_e.reshape(4, 2, *z_e.shape[1:]), MASK.reshape(4, 2, -1)
    (gradients, loss), result, after = two_steps(mapped, variables, z_e, mask, keys)
    result = result.replace(loss=loss, metrics=jax.tree.map(lambda x: x[0], result.metrics))
    return gradients, jax.tree.map(lambda x: x.reshape(8, *x.shape[2:]), (result.z_bar, result.indices)), result, after


def by_shard_map(options, variables, z_e, keys):
    def device_step(variables, z_e, mask, key):
        gradients, result, after = step(made(options, axis_name="d"), variables, z_e, mask, key[0])
        gradients = jax.tree.map(lambda x: x / 4, gradients)  # they are summed over the devices
        shared = result.replace(loss=jax.lax.pmean(result.loss, "d"), z_bar=0, indices=0, gains=0, losses=0)
        return gradients, (result.z_bar, result.indices), shared, after

    mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
    whole, split = P(), P("d")
    mapped = jax.shard_map(
        device_step, mesh=mesh, in_specs=(whole, split, split, split), out_specs=(whole, split, whole, whole)
    )

    def reordered(*arguments):
        gradients, arrays, result, after = mapped(*arguments)
        return gradients, (arrays, result), after

    gradients, (arrays, result), after = two_steps(jax.jit(reordered), variables, z_e, MASK, keys)
    return gradients, arrays, result, after


def by_explicit_mesh(options, variables, z_e, keys):
    sharding = NamedSharding(jax.make_mesh((4,), ("data",)), P("data"))
    z_e, mask = jax.device_put((z_e, MASK), sharding)
    compiled = jax.jit(lambda *arguments: step(made(options), *arguments))
    gradients, result, after = two_steps(compiled, variables, z_e, mask, keys[0])
    assert jax.typeof(result.z_bar).sharding.spec[0] == jax.typeof(result.indices).sharding.spec[0] == "data"
    assert all(jax.typeof(leaf).sharding.is_fully_replicated for leaf in jax.tree.leaves(after))
    return gradients, (result.z_bar, result.indices), result, after


# pmap and shard_map give the same collectives to a quantizer; a mesh has none, and the compiler inserts its own.
@pytest.mark.parametrize(
    ("form", "name"),
    [
        (by_pmap, "gradient"),
        (by_shard_map, "clusters"),
        (by_explicit_mesh, "gradient"),
        (by_explicit_mesh, "clusters"),
    ],
)
def test_four_devices_take_the_step_of_one(form, name):
    """A gradient step with padding, twice; each device has another key, as for dropout."""
    options = SHARDED[name]
    z_e = inputs(options)
    quantizer = made(options)
    variables = initial(quantizer, z_e)
    keys = jax.random.split(KEY, 4)
    gradients, result, after = two_steps(functools.partial(step, quantizer), variables, z_e, MASK, keys[0])
    others, (z_bar, indices), metrics, state = form(options, variables, z_e, keys)
    np.testing.assert_array_equal(indices, result.indices)
    assert_close(state, after)
    assert_close(z_bar, result.z_bar)
    assert_close(others, gradients)
    np.testing.assert_allclose(metrics.loss, result.loss, rtol=1e-4)
    assert_close(metrics.metrics, result.metrics)


def test_layers_and_steps_of_time_can_be_scanned():
    options = {"mode": "vq", "learning": "gradient"}

    class Layers(nn.Module):
        """Quantizers of their own in each of eight layers."""

        @nn.compact
        def __call__(self, z_e, train):
            call = nn.scan(
                lambda quantizer, carry, z: (carry, quantizer(z, None, train)),
                variable_axes={"params": 0, "codebook": 0},
                split_rngs={"params": True, "codebook": True},
            )
            return call(made(options, name="quantizer"), None, z_e)[1]

    class Time(nn.Module):
        """One quantizer, trained at each of eight points in time."""

        @nn.compact
        def __call__(self, z_e, train):
            call = nn.scan(
                lambda quantizer, carry, z: (carry, quantizer(z, None, train)),
                variable_broadcast="params",
                variable_carry="codebook",
                split_rngs={"params": False, "codebook": True},
            )
            return call(made(options, name="quantizer"), None, z_e)[1]

    @functools.partial(jax.jit, static_argnums=0)
    def train(module, variables):
        return module.apply(variables, Z_E, True, mutable=["codebook"], rngs={"codebook": KEY})

    variables = jax.jit(lambda key: Layers().init(key, Z_E, False))(jax.random.key(0))
    result, updates = train(Layers(), variables)
    assert result.loss.shape == (8,)
    assert updates["codebook"]["quantizer"]["frequency"].shape == (8, K)

    alone = initial(made(options), Z_E[0])
    variables = {collection: {"quantizer": arrays} for collection, arrays in alone.items()}
    result, updates = train(Time(), variables)
    assert result.loss.shape == (8,)
    assert updates["codebook"]["quantizer"]["steps"] == 8


def test_it_can_be_mapped():
    quantizer, variables = started({"mode": "projected"})
    each = jax.jit(jax.vmap(lambda z: quantizer.apply(variables, z)))(Z_E)
    np.testing.assert_array_equal(each.indices, apply(quantizer, variables, Z_E).indices)
    # With the name of the axis, the batch is that of all of them.
    over_axis = made({"mode": "projected"}, axis_name="batch")
    updates = jax.vmap(lambda z: step(over_axis, variables, z)[2], axis_name="batch")(Z_E)
    assert_close(jax.tree.map(lambda x: x[0], updates), step(quantizer, variables, Z_E)[2])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_the_latent_has_the_dtype_of_the_input_and_all_else_is_float32(dtype):
    quantizer, variables = started({"mode": "projected"})
    _, result, after = step(quantizer, variables, jnp.asarray(Z_E, dtype))
    assert result.z_bar.dtype == dtype
    assert result.loss.dtype == result.gains.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype("float32"), jnp.dtype("int32")}
    exact = apply(quantizer, variables, jnp.asarray(Z_E, dtype).astype(jnp.float32))
    np.testing.assert_array_equal(apply(quantizer, variables, jnp.asarray(Z_E, dtype)).indices, exact.indices)


def test_variables_are_stored_like_those_of_other_modules(tmp_path):
    quantizer, variables = started({"mode": "vq", "learning": "gradient"})
    restored = serialization.from_bytes(initial(quantizer, Z_E), serialization.to_bytes(variables))
    assert_close(restored, variables, rtol=0, atol=0)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "step", variables)
        checkpointer.wait_until_finished()
        assert_close(checkpointer.restore(tmp_path / "step"), variables, rtol=0, atol=0)


class Network(nn.Module):
    """A network of one's own."""

    @nn.compact
    def __call__(self, x, train=False):
        latent = HybridQuantizer(dim=8, num_codes=16, dim_in=12, name="quantizer")(nn.Dense(12)(x), train=train)
        return nn.Dense(x.shape[-1])(latent.z_bar), latent


def test_a_network_of_ones_own_learns():
    x = jax.random.normal(jax.random.key(0), (4, 6, 6, 6, 3))  # volumes
    variables = jax.jit(Network().init)(jax.random.key(1), x)
    optimizer = optax.adam(1e-2)

    @jax.jit
    def train_step(variables, optimizer_state, key):
        def loss(params):
            (y, latent), updates = Network().apply(
                {**variables, "params": params}, x, train=True, mutable=["codebook"], rngs={"codebook": key}
            )
            return jnp.mean((y - x) ** 2) + latent.loss, updates

        (value, updates), gradients = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        changes, optimizer_state = optimizer.update(gradients, optimizer_state)
        return {"params": optax.apply_updates(variables["params"], changes), **updates}, optimizer_state, value

    optimizer_state, values = optimizer.init(variables["params"]), []
    for index in range(30):
        variables, optimizer_state, value = train_step(variables, optimizer_state, jax.random.key(index))
        values.append(value)
    assert values[-1] < 0.5 * values[0]


BAD_OPTIONS = {
    "mode=hybrid: choose one of vq, projected, frequency, combined": {"mode": "hybrid"},
    "family=lattice: choose one of": {"family": "lattice"},
    "learning=gradiant: choose one of": {"learning": "gradiant"},
    "codebook_init=zeros: choose one of uniform, data, kmeans": {"codebook_init": "zeros"},
    "num_codes=0: must be at least 1": {"num_codes": 0},
    "dim_in='4': must be an integer or None": {"dim_in": "4"},
    "num_frequent=312: must be from 0 to 8": {"mode": "combined"},
    "revive_below=0.5: learning=gradient has no such option": {"learning": "gradient", "revive_below": 0.5},
    "mode=projected: family=fsq needs mode=vq": {"family": "fsq"},
    "unit_norm=codes: needs commitment_target=projection": {"unit_norm": "codes"},
}


@pytest.mark.parametrize("problem", BAD_OPTIONS)
def test_bad_options_are_refused_when_it_is_made(problem):
    with pytest.raises(ArgumentError) as error:
        made(BAD_OPTIONS[problem])
    assert str(error.value).startswith(problem)
    assert "\n" not in str(error.value)


def test_bad_arguments_are_refused_by_name():
    quantizer, variables = started({"mode": "projected"})
    training = {"train": True, "rngs": {"codebook": KEY}, "mutable": ["codebook"]}

    def refused(match, *arguments, **given):
        with pytest.raises(ValueError, match=match) as error:
            quantizer.apply(variables, *arguments, **given)
        assert "\n" not in str(error.value)

    refused(r"^mask: must be bool of the shape \[8, 5\]", Z_E, MASK[0])
    refused(r"^mask: must be bool .* and is int32", Z_E, MASK.astype(int))
    refused(r"^dim=4: z_e, of shape \[8, 5, 2\], has 2 channels: .* dim_in", Z_E[..., :2])
    refused(r"^z_e: must be floating-point numbers, not int32", np.ones((3, 4), np.int32))
    refused(r'^rngs: .*rngs=\{"codebook": key', Z_E, **{**training, "rngs": {}})
    refused(r'^mutable: .*mutable=\["codebook"\]', Z_E, **{**training, "mutable": False})
    codes = {"method": "from_codes"}
    refused(r"^indices: must be from 0 to 7 \(or -1 for padding\), and reach from 2 to 8", np.array([2, 8]), **codes)
    refused(r"^indices: must be from 0 to 7", np.array([-2, 1]), **codes)
    refused(r"^indices: must be integers", np.array([0.5]), **codes)
    refused(r"^gains: have the shape \[2\], and the indices \[3\]", np.array([0, 1, 2]), np.ones(2), **codes)
    refused(r"^residuals: mode=projected has none", np.array([0]), None, np.ones((1, D)), **codes)
    residual = made({"mode": "vq", "family": "residual", "depth": 2})
    variables = initial(residual, Z_E)
    with pytest.raises(ArgumentError, match=r"^indices: must have the shape \[\.\.\., 2\], not \[3\]"):
        residual.apply(variables, np.array([0, 1, 2]), method="from_codes")


def test_options_are_those_of_the_sections_and_described():
    names = {field.name for field in dataclasses.fields(HybridQuantizerOptions)}
    assert {"mode", "num_codes", "levels", "codebook_init", "commitment_weight", "dim_in", "axis_name"} <= names
    assert not {name for name in names if hasattr(nn.Module, name)}
    for name in names:
        assert f"    {name}: " in HybridQuantizer.__doc__
