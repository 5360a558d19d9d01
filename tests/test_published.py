from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

import benchmarks.tools
from agents import cli
from agents.network import load_policy
from restore_env.metrics import psnr
from restore_env.toolbox import Toolbox
from tools_zoo.published import SOURCE, import_rl_restore
from tools_zoo.table import TOOLS
from tools_zoo.tensor_bundles import Variable, masked_crc32c, read_bundle
from tools_zoo.toolboxes import ToolboxError, load_toolbox, read_tool

Bundle = Mapping[str, npt.NDArray[Any]]

THREE_LAYER = {"conv1": (9, 9, 3, 32), "conv2": (5, 5, 32, 16), "conv3": (5, 5, 16, 3)}
EIGHT_LAYER = {
    "conv1": (5, 5, 3, 64),
    "conv1_2": (1, 1, 64, 32),
    "conv2": (3, 3, 32, 32),
    "conv2_2": (1, 1, 32, 64),
    "conv2a": (3, 3, 32, 32),
    "conv2c": (3, 3, 32, 32),
    "conv2d": (3, 3, 32, 32),
    "conv3": (5, 5, 64, 3),
}
CELL = "prediction/prediction_rnn/basic_lstm_cell"


# A writer of bundles ------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    out, before = b"", b""
    for key, value in pairs:
        shared = next(
            (i for i, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), min(len(before), len(key))
        )
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    return out + struct.pack("<II", 0, 1)


def table(pairs: list[tuple[bytes, bytes]], rows_per_block: int = 5) -> bytes:
    out, handles = b"", []

    def put(content: bytes) -> bytes:
        nonlocal out
        handle = varint(len(out)) + varint(len(content))
        out += content + b"\0" + struct.pack("<I", masked_crc32c(content + b"\0"))
        return handle

    for start in range(0, len(pairs), rows_per_block):
        rows = pairs[start : start + rows_per_block]
        handles.append((rows[-1][0] + b"~", put(block(rows))))
    meta = put(block([]))
    footer = meta + put(block(handles))
    return out + footer.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def write_bundle(prefix: Path, variables: Bundle) -> None:
    data, pairs = b"", [(b"", field(1, 1) + field(3, field(1, 1)))]
    for name in sorted(variables):
        raw = variables[name].tobytes()
        shape = b"".join(field(2, field(1, size)) for size in variables[name].shape)
        entry = field(1, 3 if variables[name].dtype.kind == "i" else 1) + field(2, shape)
        entry += (field(4, len(data)) if data else b"") + field(5, len(raw))
        pairs.append((name.encode(), entry + varint(6 << 3 | 5) + struct.pack("<I", masked_crc32c(raw))))
        data += raw
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(pairs))


def random_tool(network: str, rng: np.random.Generator) -> Bundle:
    layers = THREE_LAYER if network == "three_layer" else EIGHT_LAYER
    variables: dict[str, npt.NDArray[Any]] = {}
    for name, shape in layers.items():
        variables[f"{name}/weights"] = rng.normal(0, 0.05, shape).astype("<f4")
        variables[f"{name}/biases"] = rng.normal(0, 0.05, shape[-1]).astype("<f4")
    return variables


def random_agent(rng: np.random.Generator) -> Bundle:
    shapes: dict[str, tuple[int, ...]] = {
        "prediction/l1/w": (9, 9, 3, 32),
        "prediction/l1/biases": (32,),
        "prediction/l2/w": (5, 5, 32, 24),
        "prediction/l2/biases": (24,),
        "prediction/l3/w": (5, 5, 24, 24),
        "prediction/l3/biases": (24,),
        "prediction/l4/w": (5, 5, 24, 24),
        "prediction/l4/biases": (24,),
        "prediction/l7/Matrix": (384, 32),
        "prediction/l7/bias": (32,),
        f"{CELL}/kernel": (94, 200),
        f"{CELL}/bias": (200,),
        "prediction/q/Matrix": (50, 13),
        "prediction/q/bias": (13,),
    }
    variables: dict[str, npt.NDArray[Any]] = {
        name: rng.normal(0, 0.1, shape).astype("<f4") for name, shape in shapes.items()
    }
    return variables | {"step/step": np.array(2_000_000, "<i4")}


@pytest.fixture(scope="module")
def bundles() -> dict[str, Bundle]:
    rng = np.random.default_rng(0)
    tools = {f"toolbox/tool{i:02d}": random_tool(spec.network(), rng) for i, spec in enumerate(TOOLS, 1)}
    return tools | {"models/model": random_agent(rng)}


@pytest.fixture(scope="module")
def pristine(bundles: dict[str, Bundle], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic")
    for name, variables in bundles.items():
        write_bundle(folder / name, variables)
    return folder


@pytest.fixture(scope="module")
def imported(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_rl_restore(pristine, tmp_path_factory.mktemp("imported") / "deep" / "toolbox")


@pytest.fixture
def src(pristine: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(pristine, tmp_path / "src"))


# What the networks should compute, written from their published form: HWIO kernels on images with swapped axes -------


def published_conv(images: Tensor, bundle: Bundle, weights: str, biases: str, stride: int = 1) -> Tensor:
    kernel = torch.tensor(bundle[weights]).permute(3, 2, 0, 1)
    pads: list[int] = []
    for size in (images.shape[3], images.shape[2]):
        missing = max(0, (-(-size // stride) - 1) * stride + kernel.shape[-1] - size)
        pads += [missing // 2, missing - missing // 2]
    return F.conv2d(F.pad(images, pads), kernel, torch.tensor(bundle[biases]), stride=stride)


def published_tool(images: Tensor, bundle: Bundle) -> Tensor:
    def conv(x: Tensor, name: str) -> Tensor:
        return published_conv(x, bundle, f"{name}/weights", f"{name}/biases")

    swapped = images.transpose(2, 3)
    if "conv1_2/weights" not in bundle:
        return (swapped + conv(conv(conv(swapped, "conv1").relu(), "conv2").relu(), "conv3")).transpose(2, 3)
    x = conv(conv(swapped, "conv1").relu(), "conv1_2")
    x = x + conv(conv(x.relu(), "conv2").relu(), "conv2a")
    x = x + conv(conv(x.relu(), "conv2c").relu(), "conv2d")
    return (swapped + conv(conv(x, "conv2_2").relu(), "conv3")).transpose(2, 3)


def published_q(images: Tensor, actions: list[Tensor], bundle: Bundle) -> list[Tensor]:
    """Q values of as many steps as there are previous actions, the image staying as it is."""
    x = images.transpose(2, 3)
    for layer in range(1, 5):
        x = published_conv(x, bundle, f"prediction/l{layer}/w", f"prediction/l{layer}/biases", stride=2).relu()
    variables = {name: torch.tensor(value) for name, value in bundle.items()}
    flat = x.permute(0, 2, 3, 1).flatten(1)
    embedded = (flat @ variables["prediction/l7/Matrix"] + variables["prediction/l7/bias"]).relu()
    hidden = cell = torch.zeros(len(images), 50)
    steps = []
    for action in actions:
        inputs = torch.cat([embedded, F.one_hot(action, 14)[:, :12].float(), hidden], dim=1)
        i, j, f, o = (inputs @ variables[f"{CELL}/kernel"] + variables[f"{CELL}/bias"]).chunk(4, dim=1)
        cell = torch.sigmoid(f + 1) * cell + torch.sigmoid(i) * torch.tanh(j)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        steps.append(hidden @ variables["prediction/q/Matrix"] + variables["prediction/q/bias"])
    return steps


# Without the published data -----------------------------------------------------------------------------------------


def test_crc32c_known_answers() -> None:
    def masked(crc: int) -> int:
        return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

    assert masked_crc32c(b"123456789") == masked(0xE3069283)
    assert masked_crc32c(bytes(32)) == masked(0x8A9136AA)  # RFC 3720, B.4


def test_imported_tools_compute_what_the_bundles_say(imported: Path, bundles: dict[str, Bundle]) -> None:
    images = torch.rand(2, 3, 31, 24, generator=torch.Generator().manual_seed(0))
    toolbox = load_toolbox(imported)
    assert toolbox.names == tuple(spec.name for spec in TOOLS)
    for number, tool in enumerate(toolbox, 1):
        expected = published_tool(images, bundles[f"toolbox/tool{number:02d}"])
        torch.testing.assert_close(tool(images), expected, atol=1e-5, rtol=0)
        assert (tool(images) - images).abs().max() > 1e-2
    recipe = read_tool(imported / "deblur_3.safetensors", "eight_layer").recipe
    assert (recipe["source"], recipe["checkpoint"]) == (SOURCE, "tool03")


def test_imported_agent_computes_what_the_bundle_says(imported: Path, bundles: dict[str, Bundle]) -> None:
    images = torch.rand(3, 3, 63, 63, generator=torch.Generator().manual_seed(0))
    actions = [torch.full((3,), 13), torch.tensor([0, 5, 11]), torch.tensor([3, 12, 7])]
    agent = load_policy(imported / "agent.safetensors")
    assert (agent.kind, agent.tools) == ("q", tuple(spec.name for spec in TOOLS))
    state = (torch.zeros(1, 3, 50), torch.zeros(1, 3, 50))
    for action, expected in zip(actions, published_q(images, actions, bundles["models/model"]), strict=True):
        scores, state = agent(images, action, state)
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)


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
    expected = {"a/w": Variable("<f4", (2, 3)), "a/wide": Variable("<f4", (4,)), "step": Variable("<i4", ())}
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


# The comparison of toolboxes ----------------------------------------------------------------------------------------


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "noise.png")
    return folder


def test_benchmark_fills_the_card(
    imported: Path,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    card, numbers = tmp_path / "card.md", tmp_path / "numbers.json"
    card.write_text("# Card\n\n<!-- tools:begin -->\nold\n<!-- tools:end -->\n\nThe end.\n")
    command = ["--images", str(photographs), "--toolbox", str(imported), "--against", str(imported)]
    command += ["--patches", "2", "--seed", "3", "--card", str(card), "--json", str(numbers)]
    assert benchmarks.tools.main(command) == 0
    lines = capsys.readouterr().out.splitlines()[: 2 + len(TOOLS)]
    assert lines[0].startswith("| tool | undoes | network | input, dB | ours, dB | published, dB | difference, dB |")
    assert lines[4].startswith("| deblur_3 | blur, sigma 2.5 to 3.75 px | eight_layer | ")
    assert all(line.endswith("| +0.00 |") for line in lines[2:])
    text = card.read_text()
    assert text.startswith("# Card\n\n<!-- tools:begin -->\n| tool |")
    assert text.endswith("```\n<!-- tools:end -->\n\nThe end.\n")
    assert "old" not in text
    assert "python -m benchmarks.tools --images photographs --toolbox " in text
    assert "--patches 2 --seed 3 --card card.md --json numbers.json\n" in text
    assert f" {tmp_path}" not in text
    record = json.loads(numbers.read_text())
    assert [row["tool"] for row in record["tools"]] == [spec.name for spec in TOOLS]
    assert benchmarks.tools.main(command) == 0
    assert card.read_text() == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "nowhere"], "nowhere"),
        (["--toolbox", "nowhere"], "nowhere: no toolbox"),
        (["--patches", "0"], "--patches must be 1 or more"),
        (["--card", "card.md"], "card.md: expected <!-- tools:begin -->"),
        (["--json", "nowhere/numbers.json"], "nowhere: no such folder"),
    ],
)
def test_benchmark_fails_in_one_line(
    arguments: list[str],
    message: str,
    imported: Path,
    photographs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "card.md").write_text("# A card without a place for the table\n")
    command = ["--images", str(photographs), "--toolbox", str(imported), "--patches", "1", *arguments]
    assert benchmarks.tools.main(command) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert message in printed.err


# With the published data --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_rl_restore(published, tmp_path_factory.mktemp("real") / "rl_restore")


def read_folder(folder: Path) -> Tensor:
    arrays = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.iterdir())]
    return torch.tensor(np.stack(arrays)).permute(0, 3, 1, 2) / 255


def read_expected(array: npt.NDArray[np.float32]) -> Tensor:
    """NHWC of the expected outputs as NCHW RGB: their files hold the channels as B, G, R."""
    return torch.tensor(array[..., ::-1].copy()).movedim(-1, -3)


def test_published_tools_are_reproduced(published: Path, real: Path) -> None:
    images = read_folder(published / "test" / "moderate_in")
    expected = read_expected(np.load(published / "expected" / "tools_on_moderate.npz")["outputs"])
    with torch.inference_mode():
        for tool, outputs in zip(load_toolbox(real), expected, strict=True):
            assert (tool(images) - outputs).abs().max() <= 1e-5, tool.name


@pytest.mark.parametrize("severity", ["mild", "moderate", "severe"])
def test_published_agent_is_reproduced(severity: str, published: Path, real: Path) -> None:
    expected: dict[str, Any] = json.loads((published / "expected" / "agent.json").read_text())[severity]
    images = read_folder(published / "test" / f"{severity}_in")
    targets = read_folder(published / "test" / f"{severity}_gt")
    toolbox: Toolbox = load_toolbox(real)
    agent = load_policy(real)
    last = torch.full((len(images),), len(toolbox) + 1)
    state = (torch.zeros(1, len(images), 50), torch.zeros(1, len(images), 50))
    for step in expected["steps"]:
        with torch.inference_mode():
            scores, state = agent(images, last, state)
        np.testing.assert_allclose(scores.numpy(), step["q"], atol=1e-4, rtol=0)
        assert scores.argmax(1).tolist() == step["action"]
        last = torch.tensor(step["action"])
        images = toolbox.apply(images, step["action"])
        np.testing.assert_allclose(psnr(images, targets).numpy(), step["psnr"], atol=1e-4)
    final = read_expected(np.load(published / "expected" / f"{severity}.npz")["final"])
    assert (images - final).abs().max() <= 1e-5
