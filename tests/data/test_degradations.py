"""Small pictures that are spoiled: each step by a closed form, and the whole as a function of its generator."""

import io
import itertools
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from diffusion_jax.core.errors import InputError
from diffusion_jax.data import degradations
from diffusion_jax.data.pipeline import batches
from diffusion_jax.data.sources import Arrays

PHOTO = np.random.default_rng(7).integers(0, 256, (32, 24, 3), np.uint8)  # no photograph, but it has every frequency
PICTURE = PHOTO.astype(np.float32) / 255


def covariance(weights):
    """Of weights [n, n] that add up to 1, about their middle."""
    place = np.arange(len(weights)) - (len(weights) - 1) / 2
    rows, columns = np.meshgrid(place, place, indexing="ij")
    return np.array([[(weights * a * b).sum() for b in (rows, columns)] for a in (rows, columns)])


@pytest.mark.parametrize("size", [25, 26])
def test_a_kernel_has_the_covariance_that_was_asked_for(size):
    """To 1e-5: it is cut off at six deviations, and one of a pixel is sampled finely enough."""
    axes = [
        np.array([np.cos(0.7), np.sin(0.7)]),
        np.array([-np.sin(0.7), np.cos(0.7)]),
    ]  # turned from rows to columns
    wanted = sum(variance * np.outer(axis, axis) for variance, axis in zip((4.0, 1.0), axes, strict=True))
    weights = degradations.kernel(size, degradations.ellipse((4.0, 1.0), 0.7))
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(covariance(weights), wanted, atol=1e-5)
    other = degradations.kernel(size, degradations.ellipse((4.0, 1.0), -0.7))
    assert np.abs(covariance(other) - wanted).max() > 1


def test_a_blur_spreads_a_point_by_its_kernel():
    """Cut off at three deviations or more, a Gaussian keeps 97.3 % of its variance."""
    point = np.zeros((41, 41, 1), np.float32)
    point[20, 20] = 1
    rng = np.random.default_rng(0)

    def spread(step):
        found = step(point, rng)[..., 0]
        np.testing.assert_allclose(found.sum(), 1, rtol=1e-5)
        return covariance(found)

    for deviation, fits in ((2.0, True), (1.9, False)):
        lost = 1 - spread(degradations.round_blur((deviation, deviation))) / 4
        assert ((np.diag(lost) >= 0) & (np.diag(lost) < 0.027)).all() == fits
    variances = np.linalg.eigvalsh([spread(degradations.oval_blur((1.0, 4.0))) for _ in range(50)])
    assert (variances > 0.973).all()
    assert (variances < 4).all()
    assert variances[:, 1].max() - variances[:, 0].min() > 2  # they are not round


CHANGES = {
    "round blur": degradations.round_blur((0.5, 2.0)),
    "oval blur": degradations.oval_blur((0.5, 4.0)),
    "left out": degradations.leaving_out(4, (0.2, 2.4)),
    "left out, odd": degradations.leaving_out(1, (0.5, 0.6)),
    "shrunk": degradations.shrunk((1.5, 8.0)),
    **{
        f"{way.__name__} {shape}": lambda picture, rng, way=way, shape=shape: way(picture, shape)
        for way in (degradations.linear, degradations.cubic, degradations.area)
        for shape in ((8, 6), (13, 7), (40, 25))
    },
}


@pytest.mark.parametrize("step", CHANGES.values(), ids=CHANGES)
def test_what_is_constant_stays_so_in_every_blur_and_size(step):
    flat = np.broadcast_to(np.float32([0.2, 0.5, 1.0]), PICTURE.shape)
    for seed in range(5):
        found, changed = (step(picture, np.random.default_rng(seed)) for picture in (flat, PICTURE))
        assert found.dtype == np.float32
        assert found.shape == changed.shape
        np.testing.assert_allclose(found, np.broadcast_to(flat[0, 0], found.shape), atol=2e-6)
        assert changed.shape != PICTURE.shape or np.abs(changed - PICTURE).max() > 1e-2


def test_shrinking_shifts_nothing():
    """Of a plane, what lies in the middle of a block is the block's mean, in each of the ways."""
    rows, columns = np.meshgrid(np.arange(48), np.arange(48), indexing="ij")
    plane = ((rows + 2 * columns)[..., None] / 200).astype(np.float32)
    wanted = plane.reshape(12, 4, 12, 4, 1).mean((1, 3))
    inner = (slice(3, -3), slice(3, -3))  # beyond the reach of the border
    ways = (degradations.linear, degradations.cubic, degradations.area)
    nearest = degradations.leaving_out(4, (1.0, 1.0))(plane, np.random.default_rng(0))
    for found in (*(way(plane, (12, 12)) for way in ways), nearest):
        np.testing.assert_allclose(found[inner], wanted[inner], atol=1e-5)
    assert np.abs(plane[::4, ::4][inner] - wanted[inner]).min() > 0.02


def test_what_is_not_spoiled_are_the_means_of_blocks():
    found = degradations.means(PHOTO, 4)
    wanted = PHOTO.reshape(8, 4, 6, 4, 3).mean((1, 3))
    assert found.dtype == np.uint8
    assert np.abs(found - wanted).max() <= 0.5 + 1e-9
    assert np.abs(PHOTO[::4, ::4] - wanted).max() > 10
    assert degradations.means(PHOTO[..., :1], 4).shape == (8, 6, 1)


@pytest.mark.parametrize("kind", [degradations.coloured, degradations.grey, degradations.mixed])
def test_noise_has_the_covariance_that_was_asked_for(kind):
    """Seed 1, 65,536 pixels, entries within 5 of their own deviations: 9 entries alarm falsely once in 190,000."""
    rng = np.random.default_rng(1)
    factor = kind(3, rng)
    wanted = (2 / 255) ** 2 * factor.T @ factor
    picture = np.full((256, 256, 3), 0.5, np.float32)
    error = np.sqrt((np.outer(np.diag(wanted), np.diag(wanted)) + wanted**2) / 256**2)

    def far(level):
        noise = (degradations.noisy((level, level), lambda channels, rng: factor)(picture, rng) - 0.5).reshape(-1, 3)
        return np.abs(noise.astype(float).T @ noise / len(noise) - wanted) / error

    assert (far(2.0) < 5).all()
    assert np.diag(far(2.2)).min() > 5


def test_the_kinds_of_noise_are_what_they_say():
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(degradations.coloured(3, rng), np.eye(3))
    noise = degradations.noisy((2.0, 2.0), degradations.grey)(np.full((4, 4, 3), 0.5, np.float32), rng)
    np.testing.assert_array_equal(noise, np.broadcast_to(noise[..., :1], noise.shape))
    drawn = [factor.T @ factor for factor in (degradations.mixed(3, rng) for _ in range(50))]
    assert all((np.linalg.eigvalsh(each) > -1e-12).all() and (np.linalg.eigvalsh(each) < 1).all() for each in drawn)
    assert all(np.abs(each[~np.eye(3, dtype=bool)]).max() > 1e-3 for each in drawn)  # channels are correlated


def by_pillow(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_pillows(channels):
    """Seed 0: 40 draws of two qualities miss one with probability 2e-12."""
    rng = np.random.default_rng(0)
    image = PHOTO[..., :channels]

    def ours(quality, beside=0.0):
        return 255 * degradations.compressed(quality)((image + np.float32(beside)) / 255, rng)

    theirs = [by_pillow(image.squeeze(), quality).reshape(image.shape) for quality in (80, 81)]
    for beside in (-0.4, 0.0, 0.4):  # to the nearest byte
        np.testing.assert_allclose(ours((80, 80), beside), theirs[0], atol=1e-4)
    assert np.abs(ours((80, 80)) - theirs[1]).max() > 1
    drawn = {
        min((0, 1), key=lambda i: np.abs(found - theirs[i]).max()) for found in (ours((80, 81)) for _ in range(40))
    }
    assert drawn == {0, 1}


def test_all_orders_are_drawn_equally_often():
    """Seed 0, 6000 draws of 60 orders, by chi-squared at one false alarm in a million."""
    rng = np.random.default_rng(0)
    steps = {name: lambda word, rng, name=name: word + name for name in "abcde"}
    queues = [[steps[name] for name in queue] for queue in ("a", "b", "c", "de")]
    orders = {"".join(word) for word in itertools.permutations("abcde") if word.index("d") < word.index("e")}

    def surprise(draw):
        counts = Counter(draw() for _ in range(6000))
        assert set(counts) == orders
        return stats.chisquare(list(counts.values())).pvalue

    def queue_by_queue():
        """The control: each of the queues that are left is equally probable."""
        waiting, word = [list(queue) for queue in queues], ""
        while any(waiting):
            left = [queue for queue in waiting if queue]
            word = left[rng.integers(len(left))].pop(0)(word, rng)
        return word

    assert surprise(lambda: degradations.in_any_order(*queues)("", rng)) > 1e-6
    assert surprise(queue_by_queue) < 1e-6


def test_the_whole_has_every_step_once_and_ends_with_jpeg(monkeypatch):
    """Seed 0: 5000 draws miss one of the 72 orders with probability below 12 (1 - 0.1 / 12)^5000 = 1e-17."""
    done = []

    def recorded(name):
        def step(picture, rng):
            done.append(name)
            return picture

        return lambda *_: step

    for function, name in {
        "round_blur": "b", "oval_blur": "b", "noisy": "n", "compressed": "j",
        "shrunk": "s", "leaving_out": "s", "resized": "z",
    }.items():  # fmt: skip
        monkeypatch.setattr(degradations, function, recorded(name))
    degrade, rng, found = degradations.bsr(4), np.random.default_rng(0), set()
    for _ in range(5000):
        degrade(PICTURE, rng)
        found.add("".join(done))
        done.clear()
    # JPEG within the chain is left out at times, and then 12 orders are there.
    wanted = {"".join(word) + "j" for steps in ("bnjsz", "bnsz") for word in itertools.permutations(steps)}
    assert found == {word for word in wanted if word.index("s") < word.index("z")}
    assert found != wanted


def test_a_step_is_drawn_with_its_share():
    """Seed 0, 2000 draws, within 5 deviations: one false alarm in 1.7 million."""
    rng, error = np.random.default_rng(0), np.sqrt(2000 * 0.9 * 0.1)
    often = degradations.one_of((0.9, lambda x, rng: 1), (0.1, lambda x, rng: 0))
    count = sum(often(None, rng) for _ in range(2000))
    assert abs(count - 1800) < 5 * error
    assert abs(count - 1700) > 5 * error


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ratio", [1, 2, 3, 4])
def test_what_is_spoiled_is_a_function_of_the_generator(channels, ratio):
    image = np.kron(PHOTO[:12, :24, :channels], np.ones((2, 1, 1), np.uint8))
    image.flags.writeable = False
    transform = degradations.spoiling(degradations.bsr(ratio))
    drawn = [transform({"image": image, "label": 1}, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    for each in drawn:
        assert each["low_res"].shape == (24 // ratio, 24 // ratio, channels)
        assert each["low_res"].dtype == np.uint8
        assert each["image"] is image
        assert each["label"] == 1
    np.testing.assert_array_equal(drawn[0]["low_res"], drawn[1]["low_res"])
    assert (drawn[0]["low_res"] != drawn[2]["low_res"]).any()


def test_threads_change_nothing_and_each_epoch_spoils_anew():
    source = Arrays(np.stack([PHOTO, PHOTO[::-1]]))

    def drawn(threads):
        stream = batches(
            source,
            batch_size=2,
            seed=0,
            transforms=(degradations.spoiling(degradations.bsr(4)),),
            threads=threads,
            prefetch=threads,
        )
        return np.stack([next(stream)["low_res"] for _ in range(6)])

    alone = drawn(0)
    np.testing.assert_array_equal(alone, drawn(4))
    assert len(np.unique(alone.reshape(12, -1), axis=0)) == 12


def test_light_changes_less_than_zhangs_ranges():
    """Seeds 0 to 39, the mean squared distance from what is not spoiled; the control is no change of ranges."""
    smooth = np.asarray(Image.fromarray(PHOTO).resize((96, 128), Image.Resampling.BICUBIC))
    strong = degradations.Ranges((0.1, 2.8), (0.25, 64.0), level=(1.0, 25.0), quality=(30, 95))

    def distance(ranges):
        transform = degradations.spoiling(degradations.bsr(4, ranges))
        small = [transform({"image": smooth}, np.random.default_rng(seed))["low_res"] for seed in range(40)]
        return np.square(np.float32(small) - degradations.means(smooth, 4)).mean()

    light = distance(degradations.LIGHT)
    assert distance(strong) > 1.2 * light
    assert distance(degradations.Ranges()) == light


def test_what_cannot_be_spoiled_is_refused():
    transform, rng = degradations.spoiling(degradations.bsr(4)), np.random.default_rng(0)
    for image, said in {
        (30, 24, 3): "30x24 are no blocks of 4x4 pixels; give multiples",
        (32, 24, 2): "2 channels cannot be spoiled; give 1",
    }.items():
        with pytest.raises(InputError, match=said):
            transform({"image": np.zeros(image, np.uint8)}, rng)
    with pytest.raises(InputError, match="by 0; give a ratio of 1 or more"):
        degradations.bsr(0)
