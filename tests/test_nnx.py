"""A quantizer in a network of one's own, as an NNX module; what it computes is tested in test_hybrid_quantizer.py."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from hvq_jax import linen
from hvq_jax.errors import ArgumentError
from hvq_jax.nnx import Codebook, HybridQuantizer
from tests.test_hybrid_quantizer import MASK, METHODS, PADDED, Z_E, D, K, inputs


def made(options, **others):
    return HybridQuantizer(**{"dim": D, "num_codes": K, "rngs": nnx.Rngs(0, codebook=1), **options, **others})


class Network(nnx.Module):
    """A network of one's own."""

    def __init__(self, rngs):
        self.encoder, self.decoder = nnx.Linear(3, 12, rngs=rngs), nnx.Linear(12, 3, rngs=rngs)
        self.quantizer = HybridQuantizer(dim=8, num_codes=16, dim_in=12, mode="projected", rngs=rngs)

    def __call__(self, x):
        latent = self.quantizer(self.encoder(x))
        return self.decoder(latent.z_bar), latent


def test_a_network_of_ones_own_learns_and_rests():
    x = jax.random.normal(jax.random.key(0), (4, 10, 3))
    model = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer):
        def loss(model):
            y, latent = model(x)
            return jnp.mean((y - x) ** 2) + latent.loss

        value, gradients = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradients)
        return value

    values = [train_step(model, optimizer) for _ in range(30)]
    assert values[-1] < 0.5 * values[0]
    assert model.quantizer.codebook["steps"][...] == 30

    model.eval()
    before = jax.tree.map(jnp.copy, nnx.state(model))
    forward = nnx.jit(lambda model, x: model(x)[0])
    y = forward(model, x)
    assert np.isfinite(y).all()
    jax.tree.map(np.testing.assert_array_equal, nnx.state(model, Codebook), nnx.filter_state(before, Codebook))
    model.train()
    forward(model, x)
    assert model.quantizer.codebook["steps"][...] == 31


@pytest.mark.parametrize("name", ["projected", "combined, entropy", "codebook, gradient", "residual", "fsq"])
def test_it_computes_what_the_linen_module_does(name):
    options = METHODS[name]
    quantizer, z_e = made(options), inputs(options, PADDED)
    result = nnx.jit(lambda quantizer, z_e: quantizer(z_e, MASK, train=True))(quantizer, z_e)
    assert {type(leaf) for leaf in jax.tree.leaves(nnx.state(quantizer, Codebook), is_leaf=_is_variable)} == {Codebook}
    other = linen.HybridQuantizer(dim=D, num_codes=K, **options)
    variables = {
        "params": nnx.to_pure_dict(nnx.state(quantizer, nnx.Param)).get("params", {}),
        "codebook": nnx.to_pure_dict(nnx.state(quantizer, Codebook))["codebook"],
    }
    ours = nnx.jit(lambda quantizer, z_e: quantizer(z_e, MASK, train=False))(quantizer, z_e)
    theirs = jax.jit(other.apply)(variables, z_e, MASK)
    # Two programs may round in two ways.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7), ours, theirs)
    assert result.loss.shape == ()
    kept = nnx.jit(lambda quantizer, z_e: quantizer.codes_of(z_e, MASK))(quantizer, z_e)
    z_bar = nnx.jit(lambda quantizer, kept: quantizer.from_codes(*kept))(
        quantizer, (kept.indices, kept.gains, kept.residuals)
    )
    np.testing.assert_allclose(z_bar, ours.z_bar, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(quantizer.codes(), other.apply(variables, method="codes"))


def _is_variable(value):
    return isinstance(value, nnx.Variable)


def test_it_can_be_mapped_over_modules():
    @nnx.jit
    @nnx.split_rngs(splits=3)
    @nnx.vmap(in_axes=(0,))
    def many(rngs):
        return made({"mode": "vq"}, rngs=rngs)

    quantizers = many(nnx.Rngs(0))
    results = nnx.jit(nnx.vmap(lambda quantizer, z: quantizer(z), in_axes=(0, None)))(quantizers, Z_E)
    assert results.loss.shape == (3,)
    np.testing.assert_array_equal(quantizers.codebook["steps"][...], [1, 1, 1])


def test_bad_arguments_are_refused_by_name():
    with pytest.raises(ArgumentError, match=r"^mode=hybrid: choose one of"):
        made({"mode": "hybrid"})
    with pytest.raises(ArgumentError, match=r"^rngs: .*nnx.Rngs\(\.\.\., codebook=seed\)"):
        made({}, rngs=nnx.Rngs(params=0))(Z_E)
    with pytest.raises(ArgumentError, match=r"^mask: must be bool"):
        made({})(Z_E, MASK[0])
    with pytest.raises(ArgumentError, match=r"^indices: must be from 0 to 7"):
        made({}).from_codes(np.array([8]))
    made({}, rngs=nnx.Rngs(params=0))(Z_E, train=False)
