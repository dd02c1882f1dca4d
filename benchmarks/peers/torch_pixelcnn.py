"""The reference's class-conditional Gated PixelCNN in plain PyTorch, written from its equations, and its sampler.

Its state dict has the reference's keys, so `hvq_jax.torch_reference.weights` can convert weights.
The sampler makes a full pass through the network for every position, like that of the reference.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.peers.torch_settings import TorchSettings

LEARNING_RATE = 3e-4


class GatedLayer(nn.Module):
    """One layer of both stacks; the first has mask A, a larger kernel and no residual connection."""

    def __init__(self, width: int, num_classes: int, *, first: bool):
        super().__init__()
        self.first = first
        kernel = 7 if first else 3
        reach = kernel // 2
        self.class_cond_embedding = nn.Embedding(num_classes, 2 * width)
        self.vert_stack = nn.Conv2d(width, 2 * width, (reach + 1, kernel), padding=(reach, reach))
        self.vert_to_horiz = nn.Conv2d(2 * width, 2 * width, 1)
        self.horiz_stack = nn.Conv2d(width, 2 * width, (1, reach + 1), padding=(0, reach))
        self.horiz_resid = nn.Conv2d(width, width, 1)

    def forward(self, vertical: Tensor, horizontal: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Map the features of both stacks, `[B, width, h, w]`, to the same shape."""
        if self.first:
            self.hide_the_current_position()
        height, width = horizontal.shape[-2:]
        condition = self.class_cond_embedding(labels)[:, :, None, None]
        above = self.vert_stack(vertical)[:, :, :height]
        left = self.horiz_stack(horizontal)[..., :width]
        output = self.horiz_resid(gate(left + self.vert_to_horiz(above) + condition))
        return gate(above + condition), output if self.first else horizontal + output

    def hide_the_current_position(self) -> None:
        """Apply mask A to the weights, in place."""
        self.vert_stack.weight.data[:, :, -1].zero_()
        self.horiz_stack.weight.data[..., -1].zero_()


def gate(features: Tensor) -> Tensor:
    """Return tanh(a)·sigmoid(b), where a and b are the two halves of the channels."""
    a, b = features.chunk(2, 1)
    return torch.tanh(a) * torch.sigmoid(b)


class GatedPixelCNN(nn.Module):
    """A network from codes `[B, h, w]` and labels `[B]` to logits `[B, K, h, w]` given the preceding codes."""

    def __init__(self, num_codes: int, num_classes: int, *, width: int = 64, num_layers: int = 15, head: int = 512):
        super().__init__()
        self.embedding = nn.Embedding(num_codes, width)
        self.memory_format = torch.contiguous_format
        self.layers = nn.ModuleList(GatedLayer(width, num_classes, first=i == 0) for i in range(num_layers))
        self.output_conv = nn.Sequential(
            nn.Conv2d(width, head, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(head, num_codes, 1),
        )

    def forward(self, indices: Tensor, labels: Tensor) -> Tensor:
        """Compute the logits of all positions in one pass."""
        embedded = self.embedding(indices).permute(0, 3, 1, 2)
        vertical = horizontal = embedded.contiguous(memory_format=self.memory_format)
        for layer in self.layers:
            vertical, horizontal = layer(vertical, horizontal, labels)
        logits: Tensor = self.output_conv(horizontal)
        return logits

    def loss(self, indices: Tensor, labels: Tensor) -> Tensor:
        """Return nats per position, a scalar."""
        return functional.cross_entropy(self(indices, labels), indices)


def training_step(model: GatedPixelCNN, optimizer: torch.optim.Optimizer, indices: Tensor, labels: Tensor) -> Tensor:
    """Take one step of Adam, and return the loss before the step."""
    optimizer.zero_grad()
    loss = model.loss(indices, labels)
    loss.backward()
    optimizer.step()
    return loss.detach()


@torch.inference_mode()
def sample(model: GatedPixelCNN, labels: Tensor, height: int, width: int, positions: int) -> Tensor:
    """Draw the first `positions` of grids `[B, height, width]` in raster order; the others are zero."""
    indices = torch.zeros(len(labels), height, width, dtype=torch.int64)
    for position in range(positions):
        row, column = divmod(position, width)
        probabilities = model(indices, labels)[:, :, row, column].softmax(1)
        indices[:, row, column] = probabilities.multinomial(1)[:, 0]
    return indices


def subject(
    work: str,
    state_dict: dict[str, np.ndarray],
    indices: np.ndarray,
    labels: np.ndarray,
    positions: int,
    settings: TorchSettings,
) -> tuple[Callable[[], Any], Callable[[Any], float]]:
    """Return the function that `benchmarks.speed` times, and a function from its result to the number to compare.

    Args:
        work: "train", "loss" or "sample"; samples have no number to compare.
        state_dict: the weights; they determine the sizes of the model.
        indices: [B, h, w] int32.
        labels: [B] int32.
        positions: number of the h·w positions to draw.
        settings: how PyTorch is run.
    """
    torch.set_num_threads(settings.threads)
    num_codes, width = state_dict["embedding.weight"].shape
    num_classes, _ = state_dict["layers.0.class_cond_embedding.weight"].shape
    num_layers = sum(key.endswith("vert_stack.weight") for key in state_dict)
    head, *_ = state_dict["output_conv.0.weight"].shape
    model = GatedPixelCNN(num_codes, num_classes, width=width, num_layers=num_layers, head=head)
    model.load_state_dict({key: torch.from_numpy(array) for key, array in state_dict.items()})
    if settings.channels_last:
        model.memory_format = torch.channels_last
        model.to(memory_format=torch.channels_last)
    if settings.compiled:
        model.compile()
    grids, classes = torch.from_numpy(indices).long(), torch.from_numpy(labels).long()
    if work == "train":
        optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=settings.fused)
        return lambda: training_step(model, optimizer, grids, classes), float
    model.eval()
    if work == "loss":
        return torch.inference_mode()(lambda: model.loss(grids, classes)), float
    _, height, width = indices.shape
    return lambda: sample(model, classes, height, width, positions), lambda result: 0.0
