"""Ten photographs before and after, as a page: ``python -m benchmarks.gallery``.

Restores the examples of ``imagerestore app`` and writes a Markdown page with the middle of each, its chain and, where
the clean photograph is known, PSNR; the pictures go into a folder beside the page that has its name.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from agents.app.examples import Example, make_examples
from agents.command_line import OneLineParser, non_negative_float, run_guarded
from agents.restoration import CAUTION
from agents.restoration.before_after import side_by_side
from agents.restoration.restorer import Restoration, Restorer
from benchmarks.report.publishing import parse
from restore_env.images.arrays import Pixels
from restore_env.images.decoding import Photo, read_image
from restore_env.images.encoding import write_image
from restore_env.images.files import write_atomically
from restore_env.metrics import EQUAL

PROGRAM = "benchmarks.gallery"
PAGE = Path("docs/gallery.md")
SHOWN = (300, 400)
"""Height and width of the part that is shown, pixels."""
QUALITY = 85
"""Of the pictures, WebP."""
TEXT = """# Gallery

Ten photographs that come with scikit-image, distorted on the left and restored on the right: the middle of each, pixel
for pixel. PSNR is that of the whole photograph. Written by the command below, whatever the results are.

```
{command}
```

{pictures}

The photographs are in the public domain, CC0, or without known copyright restrictions. [The page](app.md) of
`imagerestore app` has the same examples.
"""


@dataclass(frozen=True)
class Picture:
    """A restored example and its picture."""

    example: Example
    result: Restoration
    path: Path

    def markdown(self, page: Path) -> str:
        """The picture with a heading and what is known of it."""
        chain = " → ".join(self.result.toolchain) or "no tool"
        facts = [f"**{chain}**"]
        before, after = self.result.psnr_before, self.result.psnr_after
        if before is not None and after is not None:
            change = f"{before:.2f} → {after:.2f} dB ({after - before:+.2f})"
            facts.append(f"PSNR {change if before < EQUAL else f'{after:.2f} dB, of a clean photograph'}")
        if self.result.predicted_gain:
            facts.append(f"the agent expected {self.result.predicted_gain:+.2f} dB")
        link = self.path.relative_to(page.parent).as_posix()
        return f"## {self.example.row.text}\n\n![Before and after]({link})\n\n{'; '.join(facts)}."


def _middle(pixels: Pixels) -> Pixels:
    """The part that is shown."""
    height, width = (min(length, most) for length, most in zip(pixels.shape, SHOWN, strict=False))
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def make_picture(restorer: Restorer, example: Example, folder: Path) -> Picture:
    """Restore an example and write its picture into a folder."""
    photo = read_image(example.path)
    result = restorer.restore(photo, example.clean, scale=example.row.scale, keep_stages=True)
    before, after = (Photo(_middle(result.stages[index].image), grey=photo.grey) for index in (0, -1))
    path = folder / f"{example.path.stem}.webp"
    write_image(path, side_by_side(before, after), quality=QUALITY)
    return Picture(example, result, path)


def run(arguments: argparse.Namespace) -> int:
    """Write the page and its pictures."""
    page: Path = arguments.out
    folder = page.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    restorer = Restorer(arguments.toolbox, arguments.policy, caution=arguments.caution)
    pictures = []
    with tempfile.TemporaryDirectory() as sources:
        examples = make_examples(Path(sources))
        for number, example in enumerate(examples, 1):
            print(f"[{number}/{len(examples)}] {example.path.name}", file=sys.stderr, flush=True)
            pictures.append(make_picture(restorer, example, folder))
    text = "\n\n".join(picture.markdown(page) for picture in pictures)
    write_atomically(page, TEXT.format(command=arguments.command_line, pictures=text).encode())
    size = sum(path.stat().st_size for path in (page, *(picture.path for picture in pictures)))
    print(f"{page}: {len(pictures)} photographs, {size / 1e6:.2f} MB")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = OneLineParser(prog=PROGRAM, description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE, metavar="FILE.md", help="the page (default %(default)s)")
    parser.add_argument("--toolbox", default="default", help="shipped name or folder (default %(default)s)")
    parser.add_argument("--policy", help="shipped name or file (default: the toolbox's own)")
    parser.add_argument("--caution", type=non_negative_float, default=CAUTION, help="dB (default %(default)s)")
    parsed = parse(parser, arguments)
    return run_guarded(lambda: run(parsed), parser.prog)


if __name__ == "__main__":
    sys.exit(main())
