"""The discriminators of SFT-GAN and SeD.

All take ``(N, 3, H, W)`` float RGB in [0, 1] of any size from 32x32 and are called as ``D(images, semantics)``; logits
above 0 mean "real". Sources: Wang et al., CVPR 2018, arXiv 1804.02815 (SFT-GAN); Li et al., CVPR 2024, arXiv 2402.19387
(SeD); Wang et al., ICCVW 2021, arXiv 2107.10833 (the U-Net).
"""
