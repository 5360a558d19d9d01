"""The base class of errors about files, toolboxes, policies, priors and checkpoints."""


class ImageRestoreError(ValueError):
    """An input, a file or an argument cannot be used; the message says which one and what would be right."""
