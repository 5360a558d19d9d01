"""The discriminators of SFT-GAN and SeD."""
