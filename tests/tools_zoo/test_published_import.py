"""Importing checkpoints: where they may lie, what is damaged, the command."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import cli
from tests.support.bundles import random_tool, write_bundle
from tools_zoo.catalog import TOOLS
from tools_zoo.published.checkpoints import import_rl_restore
from tools_zoo.published.tensor_bundles import read_bundle, variable
from tools_zoo.toolboxes import ToolboxError, load_toolbox


@pytest.fixture
def src(pristine: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(pristine, tmp_path / "src"))


def test_the_folder_around_or_inside_will_do(src: Path, tmp_path: Path) -> None:
    for number, given_path in enumerate((src.parent, src / "toolbox", src / "models")):
        assert len(load_toolbox(import_rl_restore(given_path, tmp_path / "outs" / str(number)))) == len(TOOLS)


def test_importing_again_is_fine_but_another_toolbox_is_kept(src: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    import_rl_restore(src, out)
    before = {path.name: path.stat().st_size for path in out.iterdir()}
    import_rl_restore(src, out)
    assert {path.name: path.stat().st_size for path in out.iterdir()} == before
    (out / "agent.safetensors").unlink()  # now it looks like any trained toolbox
    with pytest.raises(ToolboxError, match="holds another toolbox"):
        import_rl_restore(src, out)
    with pytest.raises(ToolboxError, match="not a folder"):
        import_rl_restore(src, out / "toolbox.json")


# Damage -------------------------------------------------------------------------------------------------------------


def _cut(src: Path) -> None:
    path = src / "toolbox" / "tool03.data-00000-of-00001"
    path.write_bytes(path.read_bytes()[:1000])


def _lengthen(src: Path) -> None:
    with (src / "toolbox" / "tool01.data-00000-of-00001").open("ab") as file:
        file.write(bytes(4))


def _empty(src: Path) -> None:
    (src / "toolbox" / "tool02.data-00000-of-00001").write_bytes(b"")


def _replace_by_pointer(src: Path) -> None:
    (src / "toolbox" / "tool09.index").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")


def _swap_network(src: Path) -> None:
    for suffix in ("data-00000-of-00001", "index"):
        shutil.copyfile(src / "toolbox" / f"tool01.{suffix}", src / "toolbox" / f"tool03.{suffix}")


def _swap_tool(src: Path) -> None:
    folder = src / "toolbox"
    shutil.copyfile(folder / "tool07.data-00000-of-00001", folder / "tool08.data-00000-of-00001")


def _swap_index(src: Path) -> None:
    shutil.copyfile(src / "toolbox" / "tool01.index", src / "toolbox" / "tool04.index")


def _flip_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


def _put_nan(src: Path) -> None:
    bundle = dict(random_tool("three_layer", np.random.default_rng(1)))
    bundle["conv2/weights"][2, 2, 5, 5] = np.nan
    write_bundle(src / "toolbox" / "tool05", bundle)


def _reshape(src: Path) -> None:
    bundle = dict(random_tool("three_layer", np.random.default_rng(1)))
    bundle["conv2/weights"] = bundle["conv2/weights"].reshape(5, 5, 16, 32)
    write_bundle(src / "toolbox" / "tool02", bundle)


def _renumber(src: Path) -> None:
    bundle = dict(random_tool("three_layer", np.random.default_rng(1)))
    bundle["conv2/weights"] = bundle["conv2/weights"].astype("<i4")
    write_bundle(src / "toolbox" / "tool02", bundle)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "cut": (_cut, "tool03.data-00000-of-00001: 1000 bytes, expected 203404 (eight_layer)"),
    "too long": (_lengthen, "tool01.data-00000-of-00001: 87312 bytes, expected 87308 (three_layer)"),
    "empty": (
        _empty,
        "tool02.data-00000-of-00001: 0 bytes, expected 87308 (three_layer)",
    ),
    "no data": (
        lambda src: (src / "toolbox" / "tool12.data-00000-of-00001").unlink(),
        "tool12.data-00000-of-00001: no such file",
    ),
    "no index": (lambda src: (src / "toolbox" / "tool06.index").unlink(), "tool06.index: no such file"),
    "no agent": (
        lambda src: (src / "models" / "model.data-00000-of-00001").unlink(),
        "model.data-00000-of-00001: no such file",
    ),
    "another network's files": (
        _swap_network,
        "tool03.data-00000-of-00001: 87308 bytes, expected 203404 (eight_layer)",
    ),
    "another tool's data": (_swap_tool, "tool08.data-00000-of-00001: damaged, or not the file of tool08.index"),
    "another network's index": (_swap_index, "tool04.index: conv1/biases is float32 (32,), expected float32 (64,)"),
    "a bit of the data": (
        lambda src: _flip_bit(src / "models" / "model.data-00000-of-00001", 20_000),
        "model.data-00000-of-00001: damaged",
    ),
    "a bit of the index": (
        lambda src: _flip_bit(src / "toolbox" / "tool09.index", 40),
        "tool09.index: damaged, or not the index of a tensor bundle (a checksum differs)",
    ),
    "a pointer for an index": (
        _replace_by_pointer,
        "tool09.index: damaged, or not the index",
    ),
    "NaN": (_put_nan, "tool05.data-00000-of-00001: conv2/weights holds values that are not finite"),
    "shape": (_reshape, "tool02.index: conv2/weights is float32 (5, 5, 16, 32), expected float32 (5, 5, 32, 16)"),
    "type": (_renumber, "tool02.index: conv2/weights is int32 (5, 5, 32, 16), expected float32"),
    "no tools": (lambda src: shutil.rmtree(src / "toolbox"), "expected a folder that holds toolbox/ and models/"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_and_nothing_is_written(damage: str, src: Path, tmp_path: Path) -> None:
    spoil, message = DAMAGES[damage]
    spoil(src)
    out = tmp_path / "out"
    with pytest.raises(ToolboxError) as raised:
        import_rl_restore(src, out)
    assert message in str(raised.value)
    assert str(raised.value).startswith(str(src))
    assert "\n" not in str(raised.value)
    assert not out.exists()


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("small") / "small"
    write_bundle(prefix, {"a/w": np.ones((2, 3), "<f4"), "a/wide": np.zeros(4, "<f4"), "step": np.array(7, "<i4")})
    return prefix


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_spoilt_index_gives_one_error_or_the_same_variables(small_bundle: Path, data: st.DataObject) -> None:
    expected = {"a/w": variable("<f4", (2, 3)), "a/wide": variable("<f4", (4,)), "step": variable("<i4", ())}
    whole = read_bundle(small_bundle, expected, "small")
    index = small_bundle.with_name("small.index")
    good = index.read_bytes()
    spoilt = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        spoilt[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    try:
        index.write_bytes(spoilt[: data.draw(st.integers(0, len(good)))] if data.draw(st.booleans()) else spoilt)
        try:
            read = read_bundle(small_bundle, expected, "small")
        except ToolboxError:
            return
        assert all(np.array_equal(read[name], whole[name]) for name in expected)
    finally:
        index.write_bytes(good)


# The command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def import_command_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "COMMANDS", ("import_rl_restore",))


@pytest.mark.usefixtures("import_command_only")
def test_command_imports(src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert cli.main(["import-rl-restore", str(src), str(out)]) == 0
    assert capsys.readouterr().out == f"Toolbox of 12 tools and agent.safetensors written to {out}\n"
    assert len(load_toolbox(out)) == len(TOOLS)


@pytest.mark.usefixtures("import_command_only")
@pytest.mark.parametrize("damage", ["cut", "no tools"])
def test_command_fails_in_one_line(damage: str, src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, message = DAMAGES[damage]
    spoil(src)
    assert cli.main(["import-rl-restore", str(src), str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("imagerestore: error: ")
    assert message in printed.err
    assert not (tmp_path / "out").exists()
