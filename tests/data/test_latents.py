"""Latents that are kept: their moments as they were, draws by their law, statistics, and what is refused."""

import json
import os

import jax
import numpy as np
import pytest

from diffusion_jax.autoencoding.latents import Scaling
from diffusion_jax.core.errors import InputError, NotFiniteError
from diffusion_jax.data import latents, numpy_files, pipeline, sources
from diffusion_jax.methods import pixels
from diffusion_jax.training.experiment import Data

NUM, PART, SHAPE = 11, 4, (2, 3, 2)
CACHE = latents.Cache("a", "b", NUM, PART, (4, 6, 1), SHAPE, True, True, Scaling(np.ones(2), 0.5), "the run in x")


def moments(num=NUM, views=2):
    """float32 [num, views, 2, h, w, c], of which float16 has every one."""
    rng = np.random.default_rng(0)
    mean = rng.normal(1, 2, (num, views, 1, *SHAPE))
    std = rng.uniform(0.5, 3, mean.shape)
    return np.concatenate([mean, std], 2).astype(np.float16).astype(np.float32)


def kept(path, cache=CACHE, finished=True):
    """A folder of latents."""
    latents.claim(path, cache)
    found, labels = moments(cache.num, cache.moments[0]), np.arange(cache.num) % 3
    for number in latents.missing(path, cache):
        some = np.array(cache.indices(number))
        latents.write(path, cache, number, found[some], labels[some] if cache.labelled else None)
    return latents.finish(path, cache) if finished else cache


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("latents")
    kept(path)
    return path


def test_moments_come_back_as_they_were_and_a_draw_beside_them(folder):
    source, known = sources.latents(folder), moments()
    assert len(source) == NUM
    for i in (*range(NUM), np.int64(3), -1):
        example = source[i]
        found = [[example["mean"], example["std"]], [example["mirror_mean"], example["mirror_std"]]]
        np.testing.assert_array_equal(found, known[i])
        assert example["mean"].dtype == np.float16
        assert example["label"] == i % NUM % 3
        assert example["latent"].dtype == np.float32
        np.testing.assert_array_equal(example["latent"], source[i]["latent"])
    with pytest.raises(IndexError):
        source[NUM]
    record = latents.record(folder)
    np.testing.assert_equal(source.record._asdict(), record._asdict())
    assert record._replace(statistics=None, scaling=None) == CACHE._replace(scaling=None)
    np.testing.assert_array_equal(record.scaling.scale, [1, 1])
    assert record.scaling.shift == 0.5


def test_statistics_are_those_of_draws(folder):
    """By the law of total variance, in float64; the control forgets that draws vary about their means."""
    found, known = latents.record(folder).statistics, moments().astype(np.float64)
    mean, std = known[:, :, 0].reshape(-1, 2), known[:, :, 1].reshape(-1, 2)
    np.testing.assert_allclose(found.channel_mean, mean.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.channel_std, np.sqrt(mean.var(0) + (std**2).mean(0)), rtol=1e-12)
    np.testing.assert_allclose(found.mean, mean.mean(), rtol=1e-12)
    np.testing.assert_allclose(found.std, np.sqrt(mean.var() + (std**2).mean()), rtol=1e-12)
    assert found.std > 1.2 * mean.std()


def chi_square(draws, views):
    """The sum of squares, standardised, of draws [n, ...] whose moments are [n, 2, ...]: about N(0, 1) for many."""
    square = ((draws - views[:, 0]) / views[:, 1]) ** 2
    return (square.sum() - square.size) / np.sqrt(2 * square.size)


def epochs(source, transforms, num):
    """So many batches of the whole source, in its shuffled order."""
    batches = pipeline.batches(source, batch_size=NUM, seed=1, transforms=transforms, threads=0, prefetch=1)
    return [next(batches) for _ in range(num)]


def test_every_epoch_draws_anew_by_the_law_of_the_code(folder):
    """Seed 1, 40 epochs of 11 images of 12 entries. Bars of 4.5 standard errors: a false alarm in 150,000."""
    known = {tuple(m[0].ravel()): (0, i) for i, views in enumerate(moments()) for m in views[:1]}
    known |= {tuple(views[1, 0].ravel()): (1, i) for i, views in enumerate(moments())}
    source = sources.latents(folder)

    def kept_moments(features, rng):
        return features | {"was": np.stack([features["mean"], features["std"]]).astype(np.float32)}

    found = epochs(source, (latents.random_mirror, kept_moments, latents.draw), 40)
    assert set(found[0]) == {"latent", "label", "was"}
    was, draws = (np.concatenate([batch[name] for batch in found]) for name in ("was", "latent"))
    assert draws.dtype == np.float32
    which = np.array([known[tuple(mean.ravel())] for mean in was[:, 0]])
    mirrored = which[:, 0].mean()
    assert abs(mirrored - 0.5) < 4.5 * 0.5 / np.sqrt(len(which))
    assert abs(chi_square(draws, was)) < 4.5
    noise = ((draws - was[:, 0]) / was[:, 1]).reshape(40, -1)
    assert abs(noise.mean() * np.sqrt(noise.size)) < 4.5
    # Two epochs share no noise: the products of both are about N(0, 1), too.
    by_image = [x.reshape(-1, 12)[np.argsort(which[i * NUM : (i + 1) * NUM, 1])] for i, x in enumerate(noise)]
    product = np.stack(by_image[:-1]) * np.stack(by_image[1:])
    assert abs(product.mean() * np.sqrt(product.size)) < 4.5
    # Controls: one frozen draw; draws without their spread.
    frozen = [source[int(i)]["latent"] for i in which[which[:, 0] == 0, 1]]
    assert abs(chi_square(np.stack(frozen), was[which[:, 0] == 0])) > 4.5
    assert abs(chi_square(was[:, 0], was)) > 4.5


def test_latents_without_mirrors_are_never_mirrored(tmp_path):
    kept(tmp_path, CACHE._replace(mirrored=False, labelled=False, scaling=None))
    source = sources.latents(tmp_path)
    assert set(source[0]) == {"mean", "std", "latent"}
    with pytest.raises(InputError, match=r"without their mirrors; prepare them with --config\.data\.flip=True"):
        latents.with_mirrors(source)
    with pytest.raises(InputError, match="without their mirrors"):
        latents.random_mirror(source[0], np.random.default_rng(0))
    with pytest.raises(InputError, match="the data has no label"):
        sources.with_labels(source, 3)[0]


def test_a_config_of_latents_reads_them(tmp_path):
    kept(tmp_path / "train")
    images = Data(None, {"image": None, "label": jax.ShapeDtypeStruct((), np.int32)}, lambda batch: None, None, None)
    data = pixels.latents(images, SHAPE, lambda split: sources.latents(tmp_path / split), flip=True)
    (batch,) = epochs(data.source("train"), data.transforms, 1)
    assert (data.clean(batch) == batch["latent"]).all()
    assert {name: x.shape[1:] for name, x in batch.items()} == {"label": (), "latent": SHAPE}


def test_parts_are_bytes_of_what_is_in_them(tmp_path):
    for name in "ab":
        kept(tmp_path / name)
    ours, theirs = ({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in "ab")
    assert ours == theirs
    assert sorted(ours) == [*(f"0000{i}-of-00003.npz" for i in range(3)), "latents.json"]


def test_half_a_folder_is_refused_and_completed(tmp_path):
    path = tmp_path / "train"
    with pytest.raises(InputError, match=r"no latents in .*diffusion_jax\.prepare"):
        sources.latents(path)
    kept(path, finished=False)
    with pytest.raises(InputError, match=r"statistics .* are missing; run prepare again"):
        sources.latents(path)
    whole = {file.name: file.read_bytes() for file in path.iterdir()}
    (path / "00001-of-00003.npz").unlink()
    os.truncate(path / "00002-of-00003.npz", 700)
    with pytest.raises(InputError, match="1 of 3 parts are missing"):
        latents.record(path)
    assert latents.missing(path, CACHE) == [1, 2]
    assert [latents.missing(path, CACHE, host, 2) for host in range(2)] == [[2], [1]]
    with pytest.raises(InputError, match="1 of 3 parts are missing"):
        latents.finish(path, CACHE)
    kept(path, finished=False)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == whole


def test_damage_is_named_when_it_is_read(tmp_path):
    kept(tmp_path)
    part = tmp_path / "00000-of-00003.npz"
    content = part.read_bytes()
    row = moments()[2].astype(np.float16).tobytes()
    part.write_bytes(content.replace(row, row[:-1] + bytes([row[-1] ^ 1])))
    source = sources.latents(tmp_path)
    source[1]
    with pytest.raises(InputError, match=r"00000-of-00003\.npz is damaged; delete it, and run prepare again"):
        source[2]
    assert latents.missing(tmp_path, CACHE) == [0]
    for wrong in (content[:500], b"", content.replace(b"moments", b"momentS")):
        part.write_bytes(wrong)
        with pytest.raises(InputError, match="00000-of-00003"):
            sources.latents(tmp_path)[0]
    for packed in ({"mean": np.zeros(3)}, numpy_files.arrays(tmp_path / "00001-of-00003.npz")):
        np.savez_compressed(part, **packed)
        with pytest.raises(InputError, match="00000-of-00003"):
            sources.latents(tmp_path)[0]
        assert latents.missing(tmp_path, CACHE) == [0]
    part.unlink()
    with pytest.raises(InputError, match="1 of 3 parts are missing"):
        sources.latents(tmp_path)


def test_a_part_with_labels_is_none_of_latents_without(tmp_path, folder):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = json.loads((tmp_path / "latents.json").read_text()) | {"labelled": False}
    (tmp_path / "latents.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"00000-of-00003\.npz holds labels, of which the record says nothing"):
        sources.latents(tmp_path)[0]


@pytest.mark.parametrize(
    "change",
    [
        {"first_stage": "c"},
        {"images": "c"},
        {"num": 12},
        {"mirrored": False},
        {"scaling": Scaling()},
        {"shape": (2, 3, 3)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_latents_are_refused(folder, change):
    before = (folder / "latents.json").read_bytes()
    with pytest.raises(InputError, match=r"holds other latents \(.* there, .* here\); give another --out") as error:
        latents.check_free(folder, CACHE._replace(**change))
    assert "\n" not in str(error.value)
    latents.check_free(folder, CACHE._replace(about="moved"))
    assert (folder / "latents.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("format", 2),
        ("num", 0),
        ("num", 2**70),
        ("num", "9"),
        ("part", 0),
        ("shape", [1, 2]),
        ("shape", [1, 2, 10**9]),
        ("mirrored", 1),
        ("first_stage", None),
        ("scaling", {"scale": 0, "shift": 0}),
        ("scaling", {"scale": [1.0], "shift": 0}),
        ("statistics", {"mean": 0.0}),
        ("statistics", {"mean": 0.0, "std": 0.0, "channel_mean": [0.0] * 2, "channel_std": [1.0] * 2}),
        ("statistics", {"mean": 0.0, "std": 1.0, "channel_mean": [0.0], "channel_std": [1.0]}),
        ("statistics", 3),
    ],
)
def test_a_record_that_is_none_is_one_line(tmp_path, folder, name, value):
    content = json.loads((folder / "latents.json").read_text()) | {name: value}
    (tmp_path / "latents.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"latents\.json is no record of latents") as error:
        latents.record(tmp_path)
    assert "\n" not in str(error.value)


def test_a_record_costs_no_more_than_its_size(tmp_path, folder):
    """One that claims two thousand million parts is refused at once."""
    content = json.loads((folder / "latents.json").read_text()) | {"num": 2_000_000_000, "part": 1}
    (tmp_path / "latents.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="2000000000 of 2000000000 parts are missing"):
        latents.record(tmp_path)


def test_latents_that_tell_nothing_are_refused(tmp_path):
    cache = CACHE._replace(num=2, mirrored=False, labelled=False)
    latents.claim(tmp_path, cache)
    latents.write(tmp_path, cache, 0, np.zeros((2, *cache.moments), np.float32), None)
    with pytest.raises(InputError, match="are the same: this first stage tells no image from another"):
        latents.finish(tmp_path, cache)
    with pytest.raises(InputError, match=r"the statistics of the latents .* are missing"):
        latents.record(tmp_path)


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        (65505.0, InputError, r"6\.55e\+04 of image 5, and float16 ends at 65504"),
        (np.inf, NotFiniteError, "image 5 are not finite"),
        (np.nan, NotFiniteError, "image 5 are not finite"),
    ],
)
def test_what_float16_cannot_hold_is_refused(tmp_path, wrong, kind, message):
    found = moments()[4:8]
    found[1, 1, 0, 0, 0, 0] = wrong
    with pytest.raises(kind, match=message):
        latents.write(tmp_path, CACHE, 1, found, np.zeros(4, int))
    assert not list(tmp_path.iterdir())


def test_images_are_known_by_what_they_are():
    def known(source, clean=lambda batch: batch["image"] / 255):
        return latents.known_by(source, clean, ("image",))

    digits = sources.digits("test")
    assert known(digits) == known(sources.digits("test"))
    others = [
        known(sources.digits("train")),
        known(digits, lambda batch: batch["image"] / 127.5 - 1),
        known(sources.Mapped(range(len(digits) - 1), digits.__getitem__)),
        known(sources.Mapped(range(len(digits)), lambda i: digits[i] | {"label": 3})),
    ]
    assert len({known(digits), *others}) == 5
