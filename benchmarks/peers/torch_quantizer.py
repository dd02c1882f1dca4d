"""The Fashion-MNIST example of vector-quantize-pytorch, `examples/autoencoder.py`: its network, loss and optimizer.

Data loading is left out: images are float NHWC in [-1, 1], as its transforms make them.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from vector_quantize_pytorch import VectorQuantize

from hvq_jax.devices.cores import number_of_cores


class Subject:
    """A training of the example.

    Args:
        seed: that of the initial weights.
        options: of the example, and keyword arguments of `VectorQuantize`, which overrule its defaults.
    """

    def __init__(
        self,
        seed: int,
        *,
        dim: int,
        num_codes: int,
        learning_rate: float,
        loss_weight: float,
        **quantizer_options: Any,
    ) -> None:
        torch.set_num_threads(number_of_cores())
        torch.manual_seed(seed)
        self._loss_weight = loss_weight
        self._encoder = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, stride=1, padding=1),
            nn.MaxPool2d(kernel_size=2, stride=2),
            nn.GELU(),
            nn.Conv2d(16, dim, kernel_size=3, stride=1, padding=1),
            nn.MaxPool2d(kernel_size=2, stride=2),
        )
        self._quantizer = VectorQuantize(
            dim=dim, codebook_size=num_codes, accept_image_fmap=True, **{"rotation_trick": True, **quantizer_options}
        )
        self._decoder = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(dim, 16, kernel_size=3, stride=1, padding=1),
            nn.GELU(),
            nn.Upsample(scale_factor=2, mode="nearest"),
            nn.Conv2d(16, 1, kernel_size=3, stride=1, padding=1),
        )
        self._model = nn.ModuleList([self._encoder, self._quantizer, self._decoder])
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=learning_rate)

    def convolutions(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the kernels `[kh, kw, I, O]` and biases `[O]` of the four convolutions, from the image inwards."""
        layers = [layer for layer in [*self._encoder, *self._decoder] if isinstance(layer, nn.Conv2d)]
        return [
            (layer.weight.detach().permute(2, 3, 1, 0).numpy().copy(), layer.bias.detach().numpy().copy())
            for layer in layers
            if layer.bias is not None
        ]

    def _forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        quantized, indices, loss = self._quantizer(self._encoder(images))
        return self._decoder(quantized).clamp(-1.0, 1.0), indices, loss

    def step(self, images: np.ndarray) -> None:
        """Take a step on images `[B, H, W, 1]`."""
        self._model.train()
        x = _channels_first(images)
        self._optimizer.zero_grad()
        decoded, _, loss = self._forward(x)
        ((decoded - x).abs().mean() + self._loss_weight * loss).backward()
        self._optimizer.step()

    @torch.inference_mode()
    def reconstruct(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return images `[B, H, W, 1]` after encoder, codes and decoder, and the indices `[B, h, w]`."""
        self._model.eval()
        decoded, indices, _ = self._forward(_channels_first(images))
        return decoded.permute(0, 2, 3, 1).numpy(), indices.numpy()


def _channels_first(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
