"""Conversion of state dicts of the PyTorch reference, `ritheshkumar95/pytorch-vqvae`, in both directions.

A state dict maps the reference's key names to numpy arrays in PyTorch's layout, with channels first in kernels.
Variables are nested dicts of JAX arrays, named like the Linen modules of `networks/` and `priors/`. One table of
(key, path, layout) serves both directions, so that a round trip is exact to the bit.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from hvq_jax.errors import UserError
from hvq_jax.networks.encoder_decoder import Decoder, Encoder
from hvq_jax.priors.pixelcnn import PixelCNN
from hvq_jax.priors.prior import Prior
from hvq_jax.schema import Array, check_arrays

StateDict = Mapping[str, np.ndarray]
Variables = Mapping[str, Any]


class _Layout(NamedTuple):
    """The layout of an array in Flax and in PyTorch."""

    rank: int  # of the Flax array
    to_flax: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


_VECTOR = _Layout(1, lambda w: w, lambda w: w)
_MATRIX = _Layout(2, lambda w: w, lambda w: w)
# [out, in, h, w] and [h, w, in, out]
_CONV = _Layout(4, lambda w: w.transpose(2, 3, 1, 0), lambda w: w.transpose(3, 2, 0, 1))
# [in, out, h, w] and [h, w, in, out], neither flipped: `double_resolution` keeps PyTorch's taps
_CONV_TRANSPOSE = _Layout(4, lambda w: w.transpose(2, 3, 0, 1), lambda w: w.transpose(2, 3, 0, 1))
# A 1×1 convolution, [out, in, 1, 1], and a matrix, [in, out]
_DENSE = _Layout(2, lambda w: w[:, :, 0, 0].T, lambda w: w.T[:, :, None, None])


class _Entry(NamedTuple):
    """An array: its key in the state dict, its path in the variables, and its layout."""

    key: str
    path: str
    layout: _Layout


def _convolution(key: str, path: str, layout: _Layout = _CONV) -> list[_Entry]:
    return [
        _Entry(f"{key}.weight", f"params/{path}/kernel", layout),
        _Entry(f"{key}.bias", f"params/{path}/bias", _VECTOR),
    ]


def _batch_norm(key: str, path: str) -> list[_Entry]:
    return [
        _Entry(f"{key}.weight", f"params/{path}/scale", _VECTOR),
        _Entry(f"{key}.bias", f"params/{path}/bias", _VECTOR),
        _Entry(f"{key}.running_mean", f"batch_stats/{path}/mean", _VECTOR),
        _Entry(f"{key}.running_var", f"batch_stats/{path}/var", _VECTOR),
    ]


def _residual_block(key: str, path: str) -> list[_Entry]:
    return [
        *_convolution(f"{key}.block.1", f"{path}/conv_3x3"),
        *_batch_norm(f"{key}.block.2", f"{path}/norm_3x3"),
        *_convolution(f"{key}.block.4", f"{path}/conv_1x1"),
        *_batch_norm(f"{key}.block.5", f"{path}/norm_1x1"),
    ]


_AUTOENCODER = [
    *_convolution("encoder.0", "encoder/conv_in"),
    *_batch_norm("encoder.1", "encoder/norm_in"),
    *_convolution("encoder.3", "encoder/conv_down"),
    *_residual_block("encoder.4", "encoder/block_0"),
    *_residual_block("encoder.5", "encoder/block_1"),
    _Entry("codebook.embedding.weight", "params/quantizer/codes", _MATRIX),
    *_residual_block("decoder.0", "decoder/block_0"),
    *_residual_block("decoder.1", "decoder/block_1"),
    *_convolution("decoder.3", "decoder/conv_up", _CONV_TRANSPOSE),
    *_batch_norm("decoder.4", "decoder/norm_up"),
    *_convolution("decoder.6", "decoder/conv_out", _CONV_TRANSPOSE),
]

# PyTorch counts the batches seen by a batch norm; our variables have no such count.
_BATCH_COUNTS = [
    entry.key.replace("running_var", "num_batches_tracked")
    for entry in _AUTOENCODER
    if entry.key.endswith("running_var")
]


def _pixelcnn(num_layers: int) -> list[_Entry]:
    layers = [_gated_layer(f"layers.{i}", f"network/layer_{i}") for i in range(num_layers)]
    return [
        _Entry("embedding.weight", "params/embedding/embedding", _MATRIX),
        *(entry for layer in layers for entry in layer),
        *_convolution("output_conv.0", "code_head/hidden", _DENSE),
        *_convolution("output_conv.2", "code_head/logits", _DENSE),
    ]


def _gated_layer(key: str, path: str) -> list[_Entry]:
    return [
        _Entry(
            f"{key}.class_cond_embedding.weight",
            f"params/{path}/class_embedding/embedding",
            _MATRIX,
        ),
        *_convolution(f"{key}.vert_stack", f"{path}/vertical"),
        *_convolution(f"{key}.vert_to_horiz", f"{path}/vertical_to_horizontal", _DENSE),
        *_convolution(f"{key}.horiz_stack", f"{path}/horizontal"),
        *_convolution(f"{key}.horiz_resid", f"{path}/horizontal_output", _DENSE),
    ]


def autoencoder_from_torch(state_dict: StateDict) -> dict[str, Any]:
    """Read the reference's `VectorQuantizedVAE`: networks with `skip="rectified"`, and the codes.

    Args:
        state_dict: all keys of the reference's module; `num_batches_tracked` is ignored.

    Returns:
        {"params": {"encoder", "decoder", "quantizer"}, "batch_stats": {"encoder", "decoder"}} of
        float32 arrays; the codes are [K, D].

    Raises:
        UserError: a key is unknown or missing, or an array has the wrong dtype, shape or values.
    """
    _check_names(state_dict, [entry.key for entry in _AUTOENCODER], optional=_BATCH_COUNTS)
    _check_values(state_dict, _AUTOENCODER)
    _check_shapes(state_dict, _AUTOENCODER, _autoencoder_shapes(state_dict))
    return _to_flax(state_dict, _AUTOENCODER)


def autoencoder_to_torch(variables: Variables, *, num_batches_tracked: int = 0) -> dict[str, np.ndarray]:
    """Write a state dict for `autoencoder_from_torch`; the networks must have `skip="rectified"` and two blocks.

    Args:
        variables: as returned by `autoencoder_from_torch`.
        num_batches_tracked: count to write for every batch norm, int64.

    Returns:
        A state dict that the reference can load; all other arrays are float32.

    Raises:
        UserError: a variable is unknown or missing, or has the wrong shape.
    """
    state_dict = _to_torch(variables, _AUTOENCODER)
    _check_shapes(state_dict, _AUTOENCODER, _autoencoder_shapes(state_dict))
    return state_dict | {key: np.asarray(num_batches_tracked, np.int64) for key in _BATCH_COUNTS}


def pixelcnn_from_torch(state_dict: StateDict) -> dict[str, Any]:
    """Read the reference's `GatedPixelCNN`, with any number of layers.

    Returns:
        {"params": ...} of a class-conditional `Prior` over plain codes with a `PixelCNN`, as float32 arrays.

    Raises:
        UserError: a key is unknown or missing, or an array has the wrong dtype, shape or values.
    """
    table = _pixelcnn(_num_layers(r"layers\.(\d{1,9})\.", state_dict))
    _check_names(state_dict, [entry.key for entry in table])
    _check_values(state_dict, table)
    _check_shapes(state_dict, table, _pixelcnn_shapes(state_dict))
    return _to_flax(state_dict, table)


def pixelcnn_to_torch(variables: Variables) -> dict[str, np.ndarray]:
    """Write a state dict for `pixelcnn_from_torch`; the reference has no unconditional model.

    Returns:
        A state dict that the reference can load, in float32.

    Raises:
        UserError: a variable is unknown or missing, or has the wrong shape.
    """
    table = _pixelcnn(_num_layers(r"params/network/layer_(\d{1,9})/", flatten_dict(variables, sep="/")))
    state_dict = _to_torch(variables, table)
    _check_shapes(state_dict, table, _pixelcnn_shapes(state_dict))
    return state_dict


def _num_layers(pattern: str, names: Iterable[str]) -> int:
    """Return the number of layers by the largest index, at most one more than there are names: one is then missing."""
    found = [match[1] for name in names if (match := re.match(pattern, name))]
    return min(1 + max((int(index) for index in found), default=0), 1 + len(found))


def _check_names(given: Iterable[str], required: Iterable[str], optional: Iterable[str] = ()) -> None:
    names = set(given)
    missing = [name for name in required if name not in names]
    if missing:
        raise UserError(f"not a model of the reference: {missing[0]} is missing")
    unknown = sorted(names - set(required) - set(optional))
    if unknown:
        raise UserError(f"not a model of the reference: {unknown[0]} is unknown")


def _check_values(state_dict: StateDict, table: list[_Entry]) -> None:
    """Raise UserError unless all arrays are floats, finite in 32 bits, and variances are not negative."""
    for key, path, _ in table:
        shape: tuple[int | str, ...] = np.shape(state_dict[key])
        lowest = 0.0 if path.endswith("/var") else -math.inf
        try:
            check_arrays({key: np.asarray(state_dict[key])}, {key: Array("floats", shape, low=lowest)})
        except ValueError as error:
            raise UserError(f"not a model of the reference: {error}") from None


def _check_shapes(state_dict: StateDict, table: list[_Entry], shapes: Mapping[str, jax.ShapeDtypeStruct]) -> None:
    """Compare with `shapes`, those of our variables by path; the error states shapes in PyTorch's layout."""
    for key, path, layout in table:
        expected = layout.to_torch(np.broadcast_to(np.float32(0), shapes[path].shape)).shape
        if np.shape(state_dict[key]) != expected:
            raise UserError(
                f"not a model of the reference: {key} has shape {np.shape(state_dict[key])}, "
                f"but the sizes of the other arrays require {expected}"
            )


def _sizes(state_dict: StateDict, key: str, rank: int) -> tuple[int, ...]:
    shape = np.shape(state_dict[key])
    if len(shape) != rank:
        raise UserError(f"not a model of the reference: {key} has shape {shape}, but must have {rank} axes")
    return shape


def _autoencoder_shapes(state_dict: StateDict) -> dict[str, jax.ShapeDtypeStruct]:
    num_codes, dim = _sizes(state_dict, "codebook.embedding.weight", 2)
    channels = _sizes(state_dict, "encoder.0.weight", 4)[1]

    def initialise(key: jax.Array) -> dict[str, Any]:
        encoder = Encoder(dim).init(key, jnp.zeros((1, 4, 4, channels), jnp.float32), train=False)
        decoder = Decoder(dim, channels).init(key, jnp.zeros((1, 1, 1, dim), jnp.float32), train=False)
        variables = {name: {"encoder": encoder[name], "decoder": decoder[name]} for name in encoder}
        variables["params"]["quantizer"] = {"codes": jnp.zeros((num_codes, dim), jnp.float32)}
        return variables

    return flatten_dict(jax.eval_shape(initialise, jax.random.key(0)), sep="/")


def _pixelcnn_shapes(state_dict: StateDict) -> dict[str, jax.ShapeDtypeStruct]:
    num_codes, width = _sizes(state_dict, "embedding.weight", 2)
    network = PixelCNN(
        num_classes=_sizes(state_dict, "layers.0.class_cond_embedding.weight", 2)[0],
        width=width,
        num_layers=_num_layers(r"layers\.(\d{1,9})\.", state_dict),
    )
    model = Prior(num_codes, network, head_width=_sizes(state_dict, "output_conv.0.weight", 4)[0])
    tokens, labels = jnp.zeros((1, 1, 1, 1), jnp.int32), jnp.zeros(1, jnp.int32)
    return flatten_dict(jax.eval_shape(model.init, jax.random.key(0), tokens, labels), sep="/")


def _to_flax(state_dict: StateDict, table: list[_Entry]) -> dict[str, Any]:
    arrays = {path: jnp.asarray(layout.to_flax(np.asarray(state_dict[key], np.float32))) for key, path, layout in table}
    return unflatten_dict(arrays, sep="/")


def _to_torch(variables: Variables, table: list[_Entry]) -> dict[str, np.ndarray]:
    arrays = flatten_dict(variables, sep="/")
    _check_names(arrays, [entry.path for entry in table])
    for _, path, layout in table:
        if np.ndim(arrays[path]) != layout.rank:
            raise UserError(
                f"not a model of the reference: {path} has shape {np.shape(arrays[path])}, "
                f"but must have {layout.rank} axes"
            )
    return {
        key: np.ascontiguousarray(layout.to_torch(np.asarray(arrays[path], np.float32))) for key, path, layout in table
    }
