"""The base class of errors about files, toolboxes, policies, priors and checkpoints."""

LONGEST = 600
"""Characters of a message; of a longer one the middle is left out."""


class ImageRestoreError(ValueError):
    """An input, a file or an argument cannot be used; the message, one line, says which and what would be right."""

    def __init__(self, message: object) -> None:
        super().__init__(one_line(message))


_NO_MEMORY = (
    *("allocate memory", "not enough memory", "out of memory", "insufficient memory", "bad_alloc"),
    *("could not create a primitive", "could not execute a primitive"),  # oneDNN's, whatever it lacks
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is no memory left; PyTorch and OpenCV have their own kinds of it."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)


def explained(error: BaseException) -> str:
    """What an error says, in one line; an operating system's with its file, a lack of memory as such."""
    if is_out_of_memory(error):
        return "there is not enough memory"
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return one_line(f"{error.filename}: {error.strerror}")
    return one_line(error)


def one_line(message: object) -> str:
    """An exception's message, or any text, in one line of :data:`LONGEST` printable characters at most.

    An exception without a message gives its name.
    """
    text = " ".join(str(message).split())
    if not text and isinstance(message, BaseException):
        text = type(message).__name__
    if not text.isprintable():  # such as the control sequences of a terminal
        text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
    if len(text) > LONGEST:
        start = LONGEST * 2 // 3
        text = f"{text[:start]} [...] {text[start + 7 - LONGEST :]}"
    return text
