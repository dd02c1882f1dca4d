import jax
import numpy as np
import pytest

from configs import default
from hvq_jax.errors import ArgumentError
from hvq_jax.runs.options import from_dict


def prior(**options):
    config = default.get_config("vq")
    config.prior.update(options)
    return from_dict(config).prior_model(num_classes=10, grid=(7, 7))


def num_parameters(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 7, 7, 1), np.int32), np.zeros(1, np.int32))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_each_network_has_sizes_of_its_own_where_none_are_given():
    pixelcnn, transformer = prior(), prior(name="transformer")
    assert (pixelcnn.network.width, pixelcnn.network.num_layers) == (64, 15)
    assert (transformer.network.width, transformer.network.num_layers) == (192, 3)
    assert num_parameters(transformer) == pytest.approx(num_parameters(pixelcnn), rel=0.02)


@pytest.mark.parametrize("name", ["pixelcnn", "transformer"])
def test_sizes_that_are_given_are_taken(name):
    network = prior(name=name, width=12, num_layers=2).network
    assert (network.width, network.num_layers) == (12, 2)
    assert prior(name=name, num_layers=2).network.width == prior(name=name).network.width


def test_heads_have_to_divide_the_width_that_is_not_given_too():
    prior(name="transformer", num_heads=6)
    with pytest.raises(ArgumentError, match=r"^prior\.num_heads=5: must divide prior\.width=192$"):
        prior(name="transformer", num_heads=5)
