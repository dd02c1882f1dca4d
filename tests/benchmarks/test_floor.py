"""What `benchmarks.floor` counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.floor import main, products
from hvq_jax.errors import UserError
from hvq_jax.priors.pixelcnn import PixelCNN
from hvq_jax.priors.prior import Prior


def test_every_kernel_entry_that_is_not_hidden_is_met_once_per_position():
    model = Prior(6, PixelCNN(num_classes=3, width=4, num_layers=3), head_width=5)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2, 2, 1), jnp.int32), jnp.zeros(1, jnp.int32))
    kernels = {
        jax.tree_util.keystr(path): leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if "kernel" in jax.tree_util.keystr(path)
    }
    entries = sum(np.prod(shape) for shape in kernels.values())
    hidden = (7 + 1) * 4 * 8  # mask A: the last row of a 4×7 kernel, the last column of a 1×4 one
    batch, height, width = 5, 2, 3
    flop = sum(product.flop for product in products(model, batch, height, width))
    assert flop == 2 * batch * height * width * (entries - hidden)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--grid=0"], "--grid=0: must be integers of at least 1, separated by commas"),
        (["--grid=7,8,9"], "--batch has 2 numbers: give 3, one per --grid"),
    ],
)
def test_bad_input_is_one_line(arguments, message):
    with pytest.raises(UserError, match=f"^{message}$"):
        main(arguments)
