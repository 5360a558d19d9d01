"""Importing checkpoints: where they may lie, what is damaged, the command."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import cli
from tests.support.bundles import random_tool, write_bundle
from tools_zoo.catalog import TOOLS
from tools_zoo.published.checkpoints import import_rl_restore
from tools_zoo.published.tensor_bundles import masked_crc32c, read_bundle, variable
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


DATA = "data-00000-of-00001"


def changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda src: (src / name).write_bytes(change((src / name).read_bytes()))


def copied(name: str, other: str) -> Callable[[Path], object]:
    return lambda src: shutil.copyfile(src / "toolbox" / name, src / "toolbox" / other)


def other_kernel(name: str, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Callable[[Path], object]:
    bundle = dict(random_tool("three_layer", np.random.default_rng(1)))
    bundle["conv2/weights"] = change(bundle["conv2/weights"])
    return lambda src: write_bundle(src / "toolbox" / name, bundle)


def bit_flipped(data: bytes) -> bytes:
    return data[:40] + bytes([data[40] ^ 1]) + data[41:]


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (
        changed(f"toolbox/tool03.{DATA}", lambda data: data[:1000]),
        f"tool03.{DATA}: 1000 bytes, expected 203404 (eight_layer)",
    ),
    "too long": (
        changed(f"toolbox/tool01.{DATA}", lambda data: data + bytes(4)),
        f"tool01.{DATA}: 87312 bytes, expected 87308 (three_layer)",
    ),
    "no data": (lambda src: (src / f"toolbox/tool12.{DATA}").unlink(), f"tool12.{DATA}: no such file"),
    "no index": (lambda src: (src / "toolbox/tool06.index").unlink(), "tool06.index: no such file"),
    "no agent": (lambda src: (src / f"models/model.{DATA}").unlink(), f"model.{DATA}: no such file"),
    "another tool's data": (
        copied(f"tool07.{DATA}", f"tool08.{DATA}"),
        f"tool08.{DATA}: damaged, or not the file of tool08.index",
    ),
    "another network's index": (
        copied("tool01.index", "tool04.index"),
        "tool04.index: conv1/biases is float32 (32,), expected float32 (64,)",
    ),
    "a bit of the data": (changed(f"models/model.{DATA}", bit_flipped), f"model.{DATA}: damaged"),
    "a bit of the index": (
        changed("toolbox/tool09.index", bit_flipped),
        "tool09.index: damaged, or not the index of a tensor bundle (a checksum differs)",
    ),
    "a pointer for an index": (
        changed("toolbox/tool09.index", lambda _: b"version https://git-lfs.github.com/spec/v1\n"),
        "tool09.index: damaged, or not the index",
    ),
    "NaN": (
        other_kernel("tool05", lambda kernel: np.where(kernel > 0.1, np.float32("nan"), kernel)),
        f"tool05.{DATA}: conv2/weights holds values that are not finite",
    ),
    "shape": (
        other_kernel("tool02", lambda kernel: kernel.reshape(5, 5, 16, 32)),
        "tool02.index: conv2/weights is float32 (5, 5, 16, 32), expected float32 (5, 5, 32, 16)",
    ),
    "type": (
        other_kernel("tool02", lambda kernel: kernel.astype("<i4")),
        "tool02.index: conv2/weights is int32 (5, 5, 32, 16), expected float32",
    ),
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


@pytest.mark.parametrize("damage", [None, "cut"])
def test_the_command_imports_or_fails_in_one_line(
    damage: str | None, src: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if damage is not None:
        DAMAGES[damage][0](src)
    out = tmp_path / "out"
    assert cli.main(["import-rl-restore", str(src), str(out)]) == (2 if damage else 0)
    printed = capsys.readouterr()
    if damage is None:
        assert printed.out == f"Toolbox of 12 tools and agent.safetensors written to {out}\n"
        assert len(load_toolbox(out)) == len(TOOLS)
    else:
        assert (printed.out, printed.err.count("\n"), out.exists()) == ("", 1, False)
        assert printed.err.startswith("imagerestore: error: ")
        assert DAMAGES[damage][1] in printed.err


def test_checksums_are_masked_crc_32c() -> None:
    checksum = 0xE3069283  # RFC 3720's check value, of "123456789"
    assert masked_crc32c(b"123456789") == ((checksum >> 15 | checksum << 17) + 0xA282EAD8) % 2**32
    assert masked_crc32c(b"") == 0xA282EAD8
