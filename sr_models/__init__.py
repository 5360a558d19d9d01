"""The place of the x4 super-resolvers, SFT-GAN and SeD."""
