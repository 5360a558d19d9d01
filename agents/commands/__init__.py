"""The commands of ``imagerestore``, a module each; heavy imports wait until a command runs."""
