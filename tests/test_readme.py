"""The README's Python runs as written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from restore_env.images.decoding import Photo, read_image
    from restore_env.images.encoding import write_image
    from restore_env.images.sources import embedded_paths

    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    photo = read_image(embedded_paths()[1]).pixels
    write_image(tmp_path / "photo.jpg", Photo(photo[:120, :130]))
    write_image(tmp_path / "photos" / "a.png", Photo(photo[:280, :290]))
    text = "\n".join(BLOCKS).replace("200_000", "4").replace("RestoreVecEnv(64,", "RestoreVecEnv(2,")
    text = text.replace(
        "RecurrentPPO(MaskedRecurrentPolicy,", "RecurrentPPO(MaskedRecurrentPolicy, n_steps=2, batch_size=4, env="
    )
    assert len(BLOCKS) >= 4
    exec(compile(text, "README.md", "exec"), {"__name__": "readme"})
    assert (tmp_path / "better.png").exists()
    assert (tmp_path / "episode.json").exists()


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_pages_show_pictures_that_exist_and_tables_that_are_filled(page: Path) -> None:
    text = page.read_text()
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (page.parent / picture).is_file(), picture
    for section, content in re.findall(r"<!-- ([\w-]+):begin -->(.*?)<!-- \1:end -->", text, flags=re.DOTALL):
        assert content.strip(), section
