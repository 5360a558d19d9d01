"""One network for all distortions: plain deep residual networks, and a cascade of tools without an agent."""

from __future__ import annotations

from torch import Tensor, nn

from tools_zoo.networks import NETWORKS, last_layer, zeroed


class BaselineNetwork(nn.Module):
    """Base class: ``(N, C, H, W)`` in [0, 1] in, ``scale`` times higher and wider out."""

    scale: int = 1
    receptive_radius: int | None = None
    """Largest distance of an input pixel that an output pixel depends on; None: the whole image."""


def convolution(entering: int, leaving: int, kernel: int = 3, *, bias: bool = True, dilation: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size, padded with zeros, its weights drawn for ReLU (He et al., ICCV 2015)."""
    layer = nn.Conv2d(entering, leaving, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=bias)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class PlainResidual(BaselineNetwork):
    """3x3 convolutions of one width with ReLU between, predicting what is to be added to the input.

    VDSR (Kim et al., CVPR 2016, section 3); with batch normalisation between the first and the last layer DnCNN (Zhang
    et al., TIP 2017, section III). Without biases, as the published counts have it.

    Args:
        layers: convolutions.
        channels: width.
        normalised: batch normalisation after all convolutions but the first and the last.
        colours: of the images.
    """

    def __init__(self, layers: int, channels: int, *, normalised: bool = False, colours: int = 3) -> None:
        super().__init__()
        self.receptive_radius = layers
        body: list[nn.Module] = [convolution(colours, channels, bias=False), nn.ReLU(inplace=True)]
        for _ in range(layers - 2):
            body += [convolution(channels, channels, bias=False)]
            body += [nn.BatchNorm2d(channels)] if normalised else []
            body += [nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*body)
        self.tail = zeroed(convolution(channels, colours, bias=False))

    def forward(self, images: Tensor) -> Tensor:
        """Restore ``(N, C, H, W)``."""
        restored: Tensor = images + self.tail(self.body(images))
        return restored


class Cascade(BaselineNetwork):
    """Tools' networks in a row, always all of them: a constant toolchain, trained end to end.

    Args:
        network: the shape of every stage, a key of :data:`tools_zoo.networks.NETWORKS`.
        stages: how many.
    """

    def __init__(self, network: str, stages: int = 3) -> None:
        super().__init__()
        self.network = network
        networks = [NETWORKS[network]() for _ in range(stages)]
        for stage in networks:
            zeroed(last_layer(stage))
        self.receptive_radius = sum(stage.receptive_radius for stage in networks)
        self.stages = nn.Sequential(*networks)

    def forward(self, images: Tensor) -> Tensor:
        """Restore ``(N, 3, H, W)``."""
        restored: Tensor = self.stages(images)
        return restored
