"""The base of all errors that this project raises itself."""


class ImageRestoreError(ValueError):
    """An input, a file or an argument cannot be used; the message says which one and what would be right."""
