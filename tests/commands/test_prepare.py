"""`diffusion_jax.prepare`: what it keeps, that it goes on where it was killed, and what it refuses."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny_stage

from configs import swiss_roll, vae
from diffusion_jax import prepare
from diffusion_jax.app import encoding
from diffusion_jax.autoencoding.latents import Scaling
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import images, latents, pipeline, sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.autoencoders import opened
from diffusion_jax.pretrained import entries, first_stages
from diffusion_jax.training.loop import fit

CONFIG = Path(tiny_stage.__file__)
PART = 16  # images of a file, here


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A first stage and its latents."""
    root = tmp_path_factory.mktemp("prepare")
    config = tiny_stage.get_config()
    fit(tiny_stage.build(config), config, root / "stage", config_file=CONFIG, devices=jax.devices()[:1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latents, "PART", PART)
        prepared(root, root / "kept", "--split", "train,test")
        yield root


def prepared(root, out, *more, stage="stage"):
    prepare.main(["--config", str(CONFIG), "--first-stage", str(root / stage), "--out", str(out), *more])


def contents(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*.*") if file.is_file()}


def test_kept_moments_are_those_of_the_encoder_and_of_mirror_images(root):
    """So latents that are kept have the law of those encoded anew, but for the rounding of float16."""
    stage = opened.opened(str(root / "stage"), "--first-stage")
    params = stage.read()
    for split, num in tiny_stage.NUM.items():
        source, digits = sources.latents(root / "kept" / split), sources.digits(split)
        record = source.record
        assert (len(source), record.shape, record.image) == (num, (4, 4, 3), (8, 8, 1))
        assert (record.mirrored, record.labelled, record.scaling) == (True, True, None)
        assert record.first_stage == opened.digest(params)
        assert record.about == f"the run in {root / 'stage'}"
        x = images.to_float(np.stack([digits[i]["image"] for i in range(num)]))
        for names, seen in ((latents.MOMENTS, x), (latents.MIRROR, x[:, :, ::-1])):
            q = tiny_stage.encode(params, seen)
            found = {name: np.stack([source[i][name] for i in range(num)]) for name in names}
            for name, known in zip(names, (q.mean, q.std), strict=True):
                np.testing.assert_allclose(found[name], known, rtol=2**-11, atol=1e-6)
        assert abs(found["mirror_mean"] - np.asarray(q.mean)[:, :, ::-1]).max() > 0.1  # a mirrored latent is another
        assert [source[i]["label"] for i in range(num)] == [digits[i]["label"] for i in range(num)]


def test_killed_after_any_part_it_goes_on_to_the_same_bytes(root, tmp_path, monkeypatch):
    whole, write, kept = contents(root / "kept" / "train"), latents.write, tmp_path / "kept" / "train"
    assert len(whole) == 4

    def killed(*arguments):
        write(*arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(latents, "write", killed)
    for parts in range(1, 4):
        with pytest.raises(KeyboardInterrupt):
            prepared(root, tmp_path / "kept")
        with pytest.raises(InputError, match=f"{3 - parts} of 3 parts are missing" if parts < 3 else "statistics"):
            latents.record(kept)
    monkeypatch.setattr(latents, "write", write)
    (kept / "00001-of-00003.npz").unlink()
    (kept / ".00001-of-00003.npz.1").touch()  # as kill -9 leaves it
    (kept / "00002-of-00003.npz").write_bytes(b"damaged")
    prepared(root, tmp_path / "kept")
    assert contents(kept) == whole
    monkeypatch.setattr(latents, "write", None)
    prepared(root, tmp_path / "kept")  # nothing is missing


def test_one_device_keeps_what_eight_do(root, tmp_path, monkeypatch):
    """To the bit: a device encodes the same images at a time."""
    assert len(jax.local_devices()) == 8
    monkeypatch.setattr(jax, "local_devices", lambda: jax.devices()[:1])
    prepared(root, tmp_path / "kept")
    assert contents(tmp_path / "kept" / "train") == contents(root / "kept" / "train")
    prepared(root, tmp_path / "others", "--batch", "7")
    ours, theirs = (sources.latents(path / "train") for path in (root / "kept", tmp_path / "others"))
    for i in range(45):
        np.testing.assert_allclose(ours[i]["mean"], theirs[i]["mean"], rtol=2**-10, atol=1e-6)


REFUSED = {
    "without mirrors": (CONFIG, "stage", ["--config.data.flip=False"], "mirror images: true there, false here"),
    "no folder": (CONFIG, "", [], "no first stage; give the work directory of one: --first-stage=runs/NAME"),
    "a folder that is not there": (CONFIG, "nowhere", [], "nowhere"),
    "another range": (vae.__file__, "stage", [], r"takes images in \[-1, 1\], where .* in \[0, 1\]"),
    "sides": (CONFIG, "stage", ["--config.data.shape=(8,7,1)"], "the data's image is 8x8x1, the config's 8x7x1"),
    "a split twice": (CONFIG, "stage", ["--split", "test,test"], "--split test,test"),
    "no such split": (CONFIG, "stage", ["--split", "valid"], "digits has no split 'valid'"),
    "no name of a split": (CONFIG, "stage", ["--split", "a b"], "--split a b: give names"),
    "no images": (swiss_roll.__file__, "stage", [], "the config trains on point, not on images"),
    "no batch": (CONFIG, "stage", ["--batch", "0"], "give a whole number from 1"),
    "other values": (CONFIG, "stage", ["--config.data.flop=1"], "flop"),
}


@pytest.mark.parametrize(("config", "stage", "more", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_one_line_before_anything_is_written(root, config, stage, more, message):
    before, out = contents(root / "kept"), root / ("kept" if "there" in message else "new")
    path = stage and str(root / stage)
    with pytest.raises(InputError, match=message) as error:
        prepare.main(["--config", str(config), "--first-stage", path, "--out", str(out), *more])
    assert "\n" not in str(error.value)
    assert contents(root / "kept") == before
    assert not (root / "new").exists()


def test_a_run_of_something_else_is_refused(root, tmp_path):
    (tmp_path / "plain.py").write_text(
        "from tiny_stage import *\nimport tiny_stage\n\n"
        "def build(config):\n    method = tiny_stage.build(config).method\n"
        "    return compose(config, method._replace(halves=None))\n"
    )
    shutil.copytree(root / "stage", tmp_path / "plain")
    stored = json.loads((tmp_path / "plain" / "config.json").read_text())
    (tmp_path / "plain" / "config.json").write_text(json.dumps(stored | {"config_file": str(tmp_path / "plain.py")}))
    with pytest.raises(InputError, match=r"plain \(--first-stage\) is no first stage"):
        opened.opened(str(tmp_path / "plain"), "--first-stage")
    (tmp_path / "empty").mkdir()
    for path, message in {
        "empty": r"no run in .*empty \(--first-stage\), and as a published first stage: .* holds no config\.json",
        "plain.py": "and as a published first stage: .* a file named",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            opened.opened(str(tmp_path / path), "--first-stage")
        assert "\n" not in str(error.value)
    shutil.rmtree(tmp_path / "plain" / "checkpoints")
    with pytest.raises(InputError, match="there is no trained run in"):
        opened.opened(str(tmp_path / "plain"), "--first-stage")
    with pytest.raises(InputError, match="variant and scale are of published first stages"):
        opened.opened(str(root / "stage"), "--first-stage", scale=0.5)


PUBLISHED = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [4, 4],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "in_channels": 1,
    "out_channels": 1,
    "latent_channels": 2,
    "scaling_factor": 0.5,
    "shift_factor": 0.25,
}


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_published_first_stage_comes_with_its_scaling(root, tmp_path):
    network = first_stages.described(PUBLISHED).network
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32) / 5, network.template())
    entries.write(params, network.entries, tmp_path / "vae", PUBLISHED)
    prepared(tmp_path, tmp_path / "kept", "--split", "test", stage="vae")
    source = sources.latents(tmp_path / "kept" / "test")
    assert source.record.scaling == Scaling(0.5, 0.25)
    assert source.record.about == f"the first stage {tmp_path / 'vae'}"
    stage = opened.opened(str(tmp_path / "vae"), "--first-stage")
    assert opened.digest(stage.read()) == source.record.first_stage
    x = images.to_float(np.stack([sources.digits("test")[i]["image"] for i in range(6)]))
    q = jax.jit(stage.halves.encode)(params, x)
    np.testing.assert_allclose([source[i]["mean"] for i in range(6)], q.mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose([source[i]["std"] for i in range(6)], q.std, rtol=1e-2)
    data = tiny_stage.build(tiny_stage.get_config()).data
    half = data._replace(clean=lambda batch: batch["image"] / np.float32(255))
    with pytest.raises(InputError, match=r"vae takes images in \[-1, 1\], where the config's data are in \[0, 1\]"):
        encoding.planned(stage, params, half, data.source("test"), PART)
    with pytest.raises(InputError, match=r"other latents \(parameters of the first stage: .* there"):
        prepared(tmp_path, root / "kept", "--split", "test", stage="vae")


def test_images_that_a_first_stage_does_not_take_are_refused(root):
    stage = opened.opened(str(root / "stage"), "--first-stage")
    params = jax.eval_shape(stage.read)
    assert opened.latent_shape(stage, params, (6, 10, 1)) == (3, 5, 3)
    for shape, message in {
        (7, 8, 1): "takes no images of 7x8x1: images of 7x8 cannot be halved once",
        (8, 8, 3): r"takes no images of 8x8x3 \(",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            opened.latent_shape(stage, params, shape)
        assert "\n" not in str(error.value)
    halves = stage.halves._replace(decode=lambda params, z: tiny_stage.decode(params, z).repeat(3, -1))
    with pytest.raises(InputError, match="makes 8x8x3 of images of 8x8x1 and latents of 4x4x3"):
        opened.latent_shape(stage._replace(halves=halves), params, (8, 8, 1))


def test_data_that_cannot_be_kept_are_refused(root, tmp_path, monkeypatch):
    data = tiny_stage.build(tiny_stage.get_config()).data
    assert encoding.mirrored(data)
    assert not encoding.mirrored(data._replace(transforms=()))
    with pytest.raises(InputError, match="changed at random by more than mirroring"):
        encoding.mirrored(data._replace(transforms=(*data.transforms, pipeline.random_binarize)))
    number = {"width": jax.ShapeDtypeStruct((), np.float32)}
    unlabelled = sources.Arrays(np.zeros((2, 8, 8, 1), np.uint8))
    labelled = pixels.with_labels(data._replace(source=lambda split: unlabelled), 3)
    halves = sources.Mapped(range(2), lambda i: sources.digits()[i] | {"label": 0.5})
    nothing = data._replace(source=lambda split: sources.Arrays(np.zeros((0, 8, 8, 1), np.uint8)))
    for wrong, message in (
        (data._replace(example={**data.example, **number}), "have width beside them, and only labels are kept"),
        (labelled, "the data has no label, only image"),
        (nothing, "the train split is empty"),
        (data._replace(source=lambda split: halves), "label is float64"),
    ):
        with pytest.raises(InputError, match=message):
            encoding.images(wrong, "train")
    monkeypatch.setattr(encoding.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**4))
    with pytest.raises(InputError, match=r"1.78e-05 GB of latents go to .*, where 1e-05 GB are free"):
        prepared(root, tmp_path / "kept")
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_two_hosts_keep_what_one_does(root, tmp_path, monkeypatch):
    """And where one fails both end; what they made stays."""
    monkeypatch.setattr(latents, "PART", 512)
    more = "--config.data.more=1155"
    prepared(root, tmp_path / "one", more)
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=2"
    environment = os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path)}
    arguments = ["--config", CONFIG, "--first-stage", root / "stage", "--out", tmp_path / "two", more]
    command = [sys.executable, "-m", "diffusion_jax.prepare", *arguments, "--hosts", "2"]

    def two(*others):
        """(status, what was said) of both hosts."""
        with socket.socket() as s:
            s.bind(("localhost", 0))
            where = ["--coordinator", f"localhost:{s.getsockname()[1]}", *others]
        processes = [
            subprocess.Popen([*command, *where, "--host", str(i)], env=environment, stderr=subprocess.PIPE, text=True)
            for i in range(2)
        ]
        try:
            said = [process.communicate(timeout=120)[1] for process in processes]
        finally:
            for process in processes:
                process.kill()
        return list(zip([process.returncode for process in processes], said, strict=True))

    (first, said_first), (second, said_second) = two("--config.data.damaged=601")
    assert (first, second) == (1, 2), (said_first, said_second)
    assert "stopped: host 1 of 2 stopped" in said_first
    assert "688/688" in said_first  # the first and the last of three parts
    assert "error: cannot read image 601" in said_second
    with pytest.raises(InputError, match="1 of 3 parts are missing"):
        latents.record(tmp_path / "two" / "train")
    (first, said_first), (second, said_second) = two()
    assert (first, second) == (0, 0), (said_first, said_second)
    assert "512/512" in said_second
    assert contents(tmp_path / "two" / "train") == contents(tmp_path / "one" / "train")
    assert latents.record(tmp_path / "two" / "train").num == 1200
