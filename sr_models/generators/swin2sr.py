"""A transformer as generator: Swin2SR, SwinIR's successor, out of the optional library ``transformers``."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, LAYERS, BLOCKS, HEADS, WINDOW = 60, 4, 6, 6, 8


class Swin2SR(nn.Module):
    """Swin2SR at the size of SwinIR's light variant (0.9 M parameters; Liang et al., 2021; Conde et al., 2022).

    Attention reaches across windows, so images go through it whole: memory grows with the image.

    Raises:
        ImportError: ``transformers`` is not installed.
    """

    takes_maps = False

    def __init__(self) -> None:
        super().__init__()
        try:
            from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution
        except ImportError:
            raise ImportError(
                "the swin2sr generator needs transformers: pip install 'imagerestore[semantics]'"
            ) from None
        config = Swin2SRConfig(
            embed_dim=WIDTH,
            depths=[BLOCKS] * LAYERS,
            num_heads=[HEADS] * LAYERS,
            window_size=WINDOW,
            upscale=4,
            upsampler="pixelshuffledirect",
        )
        self.network = Swin2SRForImageSuperResolution(config)

    def forward(self, images: Tensor) -> Tensor:
        """Enlarge ``(N, 3, H, W)`` float RGB in [0, 1] to ``(N, 3, 4H, 4W)``, neither clipped nor rounded."""
        height, width = images.shape[-2:]
        whole = F.pad(images, (0, -width % WINDOW, 0, -height % WINDOW), mode="replicate").contiguous()
        upscaled: Tensor = self.network(pixel_values=whole).reconstruction
        return upscaled[..., : 4 * height, : 4 * width]
