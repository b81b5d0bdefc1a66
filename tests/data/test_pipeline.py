"""Laws of the batch stream: it is one sequence, whoever draws it, however, and from wherever."""

import itertools
import json

import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.data.pipeline import batches, epoch, random_flip, random_shift
from diffusion_jax.data.sources import Arrays, Mapped

pytestmark = pytest.mark.slow


def numbered(n):
    """n images of 1 x 2 pixels, (0, i): they tell who they are and whether they were mirrored."""
    image = np.zeros((n, 1, 2, 1), np.uint8)
    image[:, 0, 1, 0] = np.arange(n)
    return Arrays(image, label=np.arange(n))


def take(iterator, n):
    return list(itertools.islice(iterator, n))


def joined(drawn, feature="label"):
    return np.concatenate([batch[feature] for batch in drawn])


def assert_same(drawn, expected):
    assert len(drawn) == len(expected)
    for a, b in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
        np.testing.assert_array_equal(a["label"], b["label"])


def test_batches_have_the_promised_form():
    batch = next(batches(numbered(10), batch_size=4, seed=0))
    assert batch["image"].shape == (4, 1, 2, 1)
    assert batch["image"].dtype == np.uint8
    assert batch["label"].shape == (4,)


@pytest.mark.parametrize("hosts", [1, 2, 3, 6])
def test_hosts_together_draw_the_batch_of_one(hosts):
    settings = dict(batch_size=6, seed=3, transforms=(random_flip,))
    alone = take(batches(numbered(20), **settings), 12)
    shards = [take(batches(numbered(20), **settings, host=h, hosts=hosts), 12) for h in range(hosts)]
    together = [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*shards, strict=True)
    ]
    assert_same(together, alone)


@pytest.mark.parametrize(("threads", "prefetch"), [(0, 0), (1, 1), (1, 5), (4, 4), (4, 8)])
@pytest.mark.parametrize("drawn", [0, 1, 7, 25])  # an epoch is 20 / 3 batches: mid-epoch, and past several
def test_resuming_is_exact(threads, prefetch, drawn):
    settings = dict(batch_size=3, seed=11, transforms=(random_flip,))
    expected = take(batches(numbered(20), **settings, threads=0, prefetch=0), drawn + 10)

    first = batches(numbered(20), **settings, threads=threads, prefetch=prefetch)
    assert_same(take(first, drawn), expected[:drawn])
    state = json.loads(json.dumps(first.get_state()))

    fresh = batches(numbered(20), **settings, threads=threads, prefetch=prefetch)
    fresh.set_state(state)
    assert_same(take(fresh, 10), expected[drawn:])
    # The same iterator may also be turned back, whatever its threads have already read.
    take(first, 4)
    first.set_state(state)
    assert_same(take(first, 10), expected[drawn:])


def test_a_position_means_the_same_on_another_number_of_hosts():
    settings = dict(batch_size=4, seed=5)
    expected = take(batches(numbered(30), **settings), 9)
    two = batches(numbered(30), **settings, host=1, hosts=2)
    take(two, 6)
    one = batches(numbered(30), **settings)
    one.set_state(two.get_state())
    assert_same(take(one, 3), expected[6:])


def test_every_element_comes_once_an_epoch_and_each_epoch_has_its_own_order():
    n, epochs = 50, 4
    labels = joined(take(batches(numbered(n), batch_size=8, seed=0), n * epochs // 8))
    orders = labels.reshape(epochs, n)
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(n), (epochs, 1)))
    for a, b in itertools.combinations([np.arange(n), *orders], 2):
        assert (a != b).sum() > n / 2  # two random orders agree at about 1 place


def test_seeds_give_unrelated_streams():
    # Seeds s and s + 1 must differ in every epoch; a seed that only counts epochs on would shift the stream.
    n, epochs = 40, 3
    streams = [take(batches(numbered(n), batch_size=n, seed=seed), epochs) for seed in range(4)]
    orders = np.array([batch["label"] for stream in streams for batch in stream])
    assert len(np.unique(orders, axis=0)) == len(orders)


def test_a_source_smaller_than_a_batch_is_repeated():
    drawn = take(batches(numbered(3), batch_size=7, seed=0), 3)
    assert all(len(batch["label"]) == 7 for batch in drawn)
    np.testing.assert_array_equal(np.bincount(joined(drawn)), [7, 7, 7])
    assert next(batches(numbered(1), batch_size=1, seed=0))["label"] == [0]


def mirrored(stream, n):
    """Which of the first n examples of a numbered stream were mirrored (element 0 cannot tell)."""
    images = joined(stream, "image")[:n, 0, :, 0].astype(int)
    assert ((images[:, 0] == 0) | (images[:, 1] == 0)).all()
    return images[:, 0] > 0


def test_flips_depend_on_the_position_in_the_stream_alone():
    settings = dict(seed=2, transforms=(random_flip,))
    expected = mirrored(take(batches(numbered(7), batch_size=1, **settings), 120), 120)
    for size in (2, 5, 40):
        drawn = take(batches(numbered(7), batch_size=size, **settings), 120 // size)
        np.testing.assert_array_equal(mirrored(drawn, 120), expected)


def test_half_of_the_images_are_mirrored_anew_each_epoch():
    n, epochs = 200, 20
    settings = dict(batch_size=n, transforms=(random_flip,))
    drawn = take(batches(numbered(n), seed=0, **settings), epochs)
    flips = np.zeros((epochs, n), bool)
    for row, batch in zip(flips, drawn, strict=True):
        row[batch["label"]] = mirrored([batch], n)
    flips = flips[:, 1:]  # not element 0, which has no sides
    # 3980 fair coins: 6 standard deviations either way, a false alarm in 5e8.
    assert abs(flips.mean() - 0.5) < 6 * 0.5 / np.sqrt(flips.size)
    # An element is mirrored in some epochs and not in others: never once in 20 epochs has odds of 2^-19 each,
    # so more than 1 of 199 that never changes is a false alarm in 1e7.
    assert (flips.min(axis=0) == flips.max(axis=0)).sum() <= 1
    # And not in step between epochs: agreement of epochs is again fair coins.
    agreement = (flips[1:] == flips[:-1]).mean()
    assert abs(agreement - 0.5) < 6 * 0.5 / np.sqrt(flips[1:].size)


def test_without_transforms_nothing_is_mirrored():
    assert not mirrored(take(batches(numbered(20), batch_size=5, seed=0), 40), 200).any()


def test_transforms_run_in_turn_with_randomness_of_their_own():
    def draw(name):
        return lambda features, rng: features | {name: rng.random(), "label": features["label"] * 10}

    batch = next(batches(numbered(50), batch_size=50, seed=0, transforms=(draw("a"), draw("b"))))
    assert set(batch["label"]) == {100 * i for i in range(50)}
    assert len(np.unique(np.concatenate([batch["a"], batch["b"]]))) == 100


def test_a_batch_cannot_be_written_through_to_the_source():
    source = numbered(1)
    batch = next(batches(source, batch_size=1, seed=0))
    with pytest.raises(ValueError, match="read-only"):
        batch["image"][...] = 9
    assert source[0]["image"].max() == 0


@pytest.mark.parametrize("size", [1, 4, 10, 25])
def test_an_epoch_is_one_pass_in_order(size):
    drawn = list(epoch(numbered(10), batch_size=size))
    np.testing.assert_array_equal(joined(drawn), np.arange(10))
    assert [len(batch["label"]) for batch in drawn] == [min(size, 10 - start) for start in range(0, 10, size)]


def test_an_error_of_the_source_reaches_the_caller_as_it_is():
    def read(features):
        raise InputError("image 7 is damaged; remove it")

    for threads in (0, 2):
        with pytest.raises(InputError, match="image 7 is damaged"):
            next(batches(Mapped(numbered(3), read), batch_size=2, seed=0, threads=threads))


@pytest.mark.parametrize(
    ("n", "settings", "line"),
    [
        (0, {}, "the data source is empty; give one with at least 1 image"),
        (5, {"batch_size": 0}, "batch_size 0 is too small"),
        (5, {"batch_size": 6, "hosts": 4}, "batch_size 6 does not split over 4 hosts"),
        (5, {"host": 2, "hosts": 2}, "host 2 of 2 does not exist"),
        (5, {"host": -1}, "host -1 of 1 does not exist"),
        (5, {"hosts": 0}, "host 0 of 0 does not exist"),
        (5, {"seed": -1}, "data seed -1 is out of range"),
        (5, {"seed": 2**32}, "data seed 4294967296 is out of range"),
        (5, {"threads": 4, "prefetch": 2}, "4 threads cannot fill 2 batches"),
        (5, {"threads": -1}, "-1 threads"),
    ],
)
def test_errors_are_one_line_with_the_value(n, settings, line):
    with pytest.raises(InputError) as error:
        batches(numbered(n), **({"batch_size": 4, "seed": 0} | settings))
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_an_epoch_of_nothing_is_refused():
    with pytest.raises(InputError, match="empty"):
        epoch(numbered(0), batch_size=4)


def test_a_picture_is_moved_by_as_much_as_asked_for_and_no_more():
    """Seed 0; of 25 moves all are drawn: 600 draws miss one with a probability below 25 (24/25)^600 = 6e-10."""
    image = np.zeros((9, 9, 1), np.uint8)
    image[4, 4] = 1
    rng, shift = np.random.default_rng(0), random_shift(2)
    moved = [shift({"image": image, "label": 3}, rng)["image"] for _ in range(600)]
    places = {tuple(int(at[0]) for at in np.nonzero(x[..., 0])) for x in moved}
    assert places == {(row, column) for row in range(2, 7) for column in range(2, 7)}
    assert {int(x.sum()) for x in moved} == {1}
    edge = np.full((3, 3, 1), 7, np.uint8)
    np.testing.assert_array_equal(shift({"image": edge}, rng)["image"], edge)  # the border repeats
