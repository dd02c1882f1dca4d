"""The reference's VQ-VAE in plain PyTorch, written from its equations: codes trained by gradient, latent `vq`, Adam.

Its state dict has the reference's keys, so `hvq_jax.torch_reference.weights` can convert weights.
Images are float NCHW in [-1, 1].
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers.torch_settings import TorchSettings

LEARNING_RATE = 2e-4


class ResidualBlock(nn.Module):
    """A residual block: relu(x) + f(relu(x)). The first ReLU is in place, so it also affects the first term."""

    def __init__(self, dim: int):
        super().__init__()
        self.block = nn.Sequential(
            nn.ReLU(inplace=True),
            nn.Conv2d(dim, dim, 3, padding=1),
            nn.BatchNorm2d(dim),
            nn.ReLU(inplace=True),
            nn.Conv2d(dim, dim, 1),
            nn.BatchNorm2d(dim),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `[B, D, h, w]` to the same shape, overwriting `x`."""
        return x + self.block(x)


class Codebook(nn.Module):
    """A codebook of K codes with D numbers each."""

    def __init__(self, num_codes: int, dim: int):
        super().__init__()
        self.embedding = nn.Embedding(num_codes, dim)
        self.memory_format = torch.contiguous_format

    @torch.no_grad()
    def nearest(self, z_e: Tensor) -> Tensor:
        """Return the indices `[B, h, w]` of the codes nearest to `z_e` `[B, D, h, w]`."""
        codes = self.embedding.weight
        vectors = z_e.permute(0, 2, 3, 1)
        distances = torch.addmm(codes.square().sum(1), vectors.flatten(0, 2), codes.t(), alpha=-2.0)
        return distances.argmin(1).view(vectors.shape[:-1])

    def forward(self, indices: Tensor) -> Tensor:
        """Return the codes `[B, D, h, w]` of indices `[B, h, w]`."""
        return self.embedding(indices).permute(0, 3, 1, 2).contiguous(memory_format=self.memory_format)


class VQVAE(nn.Module):
    """Encoder, codebook and decoder."""

    def __init__(self, channels: int, dim: int, num_codes: int):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, dim, 4, 2, 1),
            nn.BatchNorm2d(dim),
            nn.ReLU(inplace=True),
            nn.Conv2d(dim, dim, 4, 2, 1),
            ResidualBlock(dim),
            ResidualBlock(dim),
        )
        self.codebook = Codebook(num_codes, dim)
        self.decoder = nn.Sequential(
            ResidualBlock(dim),
            ResidualBlock(dim),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(dim, dim, 4, 2, 1),
            nn.BatchNorm2d(dim),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(dim, channels, 4, 2, 1),
            nn.Tanh(),
        )

    def loss(self, images: Tensor) -> Tensor:
        """Return the sum of reconstruction, codebook and commitment terms, a scalar."""
        z_e = self.encoder(images)
        z_q = self.codebook(self.codebook.nearest(z_e))
        straight_through = z_e + (z_q - z_e).detach()
        reconstruction = functional.mse_loss(self.decoder(straight_through), images)
        return reconstruction + functional.mse_loss(z_q, z_e.detach()) + functional.mse_loss(z_e, z_q.detach())

    @torch.no_grad()  # torch.compile cannot trace `nearest` in inference mode
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return `z_e` `[B, D, h, w]` and indices `[B, h, w]`."""
        z_e = self.encoder(images)
        return z_e, self.codebook.nearest(z_e)

    @torch.inference_mode()
    def distance(self, z_e: Tensor, indices: Tensor) -> Tensor:
        """Return the mean squared distance between `z_e` and its codes, a scalar."""
        return functional.mse_loss(self.codebook(indices), z_e)

    @torch.inference_mode()
    def decode(self, indices: Tensor) -> Tensor:
        """Return the images of indices `[B, h, w]`."""
        images: Tensor = self.decoder(self.codebook(indices))
        return images


def training_step(model: VQVAE, optimizer: torch.optim.Optimizer, images: Tensor) -> Tensor:
    """Take one step of Adam, and return the loss before the step."""
    optimizer.zero_grad()
    loss = model.loss(images)
    loss.backward()
    optimizer.step()
    return loss.detach()


def subject(
    work: str, state_dict: dict[str, np.ndarray], images: np.ndarray, indices: np.ndarray, settings: TorchSettings
) -> tuple[Callable[[], Any], Callable[[Any], float]]:
    """Return the function that `benchmarks.speed` times, and a function from its result to the number to compare.

    Args:
        work: "train", "encode" or "decode".
        state_dict: the weights; they determine the sizes of the model.
        images: [B, H, W, C] uint8.
        indices: [B, h, w] int32, the codes to decode.
        settings: how PyTorch is run.
    """
    torch.set_num_threads(settings.threads)
    num_codes, dim = state_dict["codebook.embedding.weight"].shape
    model = VQVAE(images.shape[-1], dim, num_codes)
    model.load_state_dict({key: torch.from_numpy(array) for key, array in state_dict.items()})
    memory_format = torch.channels_last if settings.channels_last else torch.contiguous_format
    model.to(memory_format=memory_format)
    model.codebook.memory_format = memory_format
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous(memory_format=memory_format)
    if settings.compiled:
        for method in ("loss", "encode", "decode"):
            setattr(model, method, torch.compile(getattr(model, method)))
    if work == "train":
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=settings.fused)
        return lambda: training_step(model, optimizer, x), float
    model.eval()
    if work == "encode":
        return lambda: model.encode(x), lambda result: model.distance(*result).item()
    codes = torch.from_numpy(indices).long()
    return lambda: model.decode(codes), lambda result: result.square().mean().item()
