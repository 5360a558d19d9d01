"""The masked recurrent policy for sb3-contrib's RecurrentPPO."""
