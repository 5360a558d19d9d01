"""Level sets: finite collections of starts with everything that was computed about them."""
