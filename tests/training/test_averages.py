"""Averages along training against sums by hand, and averages made after it against those that were there."""

import contextlib
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax import config as configs
from diffusion_jax.app import resolve
from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.data import toys
from diffusion_jax.methods import points
from diffusion_jax.training import averages, loop, snapshots, workdir
from diffusion_jax.training.averages import exponent, exponential, mixture, power, update
from diffusion_jax.training.checkpoint import Checkpoints

pytestmark = pytest.mark.slow

# ---- Profiles.


def test_sigma_rel_and_gamma_are_the_paper_s():
    """EDM2, section 3.1: 0.05 and 0.10 are gamma = 16.97 and 6.94; and equation 123, the other way."""
    assert exponent(0.05) == pytest.approx(16.97, abs=0.005)
    assert exponent(0.10) == pytest.approx(6.94, abs=0.005)
    for sigma in (1e-3, 0.02, 0.15, 0.28):
        gamma = exponent(sigma)
        assert (gamma + 1) ** 0.5 / (gamma + 2) / (gamma + 3) ** 0.5 == pytest.approx(sigma, rel=1e-9)
    assert exponent(averages.WIDEST) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("sigma", [0, -0.1, 0.3, float("nan")])
def test_a_sigma_rel_that_no_profile_has(sigma):
    with pytest.raises(InputError, match=r"must be above 0 and at most 0\.2887"):
        power(sigma)


@pytest.mark.parametrize("decay", [-0.1, 1, float("nan")])
def test_a_decay_that_is_none(decay):
    with pytest.raises(InputError, match=r"must lie in \[0, 1\)"):
        exponential(decay)


@pytest.mark.parametrize("given", [{"decays": ["abc"]}, {"profiles": [0.05, "abc"]}])
def test_an_average_must_be_a_number(given):
    with pytest.raises(InputError, match="an average of 'abc'; give numbers, such as"):
        averages.named(**given)


STEPS = 60
WALK = np.random.default_rng(0).standard_normal((STEPS, 5)).cumsum(0).astype(np.float32)


def followed(average, path):
    """The average after every row of `path`, by the recursion."""

    def step(mean, told):
        index, row = told
        mean = update({"w": mean}, {"w": row}, average.weight(index))["w"]
        return mean, mean

    start = jnp.full(path.shape[1], 1e6, jnp.float32)  # no part of the average
    return np.asarray(jax.lax.scan(step, start, (jnp.arange(len(path)), jnp.asarray(path)))[1])


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.25])
def test_a_power_function_is_the_sum_with_its_weights(sigma):
    """t^(gamma + 1) grows by the weight of update t: the integral of the profile over (t - 1, t]."""
    found, t = followed(power(sigma), WALK), np.arange(STEPS + 1.0)

    def direct(gamma, last):
        weights = np.diff((t[: last + 1] / last) ** (gamma + 1))
        assert weights.sum() == pytest.approx(1)
        return weights @ WALK[:last]

    for last in (1, 2, STEPS):
        np.testing.assert_allclose(found[last - 1], direct(exponent(sigma), last), rtol=2e-5, atol=2e-5)
    # Control: the next exponent is another average.
    assert abs(found[-1] - direct(exponent(sigma) + 1, STEPS)).max() > 1e-3


def test_late_in_training_its_weight_does_not_cancel():
    """Of 1 - (1 - 1/t)^(gamma + 1) in float32 nothing would be left at t = 10^8."""
    for t in (10**6, 10**8):
        assert float(power(0.05).weight(jnp.int32(t - 1))) == pytest.approx((exponent(0.05) + 1) / t, rel=1e-4)


def test_an_exponential_average_is_the_sum_with_its_weights():
    weights = 0.9 ** np.arange(STEPS)[::-1] * np.where(np.arange(STEPS) == 0, 1, 0.1)
    np.testing.assert_allclose(followed(exponential(0.9), WALK)[-1], weights @ WALK, rtol=1e-5)
    np.testing.assert_array_equal(followed(exponential(0.0), WALK), WALK)


def test_what_does_not_change_is_its_own_average():
    still = np.tile(np.float32([0.1, -3e-5, 7e8]), (STEPS, 1))
    for average in (exponential(0.997), power(0.05)):
        np.testing.assert_array_equal(followed(average, still), still)


# ---- Averages made of others.


def profile(t, sigma, grid):
    gamma = exponent(sigma)
    return np.where(grid <= t, (gamma + 1) / t * (grid / t) ** gamma, 0)


def test_a_mixture_is_the_nearest_of_its_kind():
    """The inner products are integrals, done here by the sum over a fine grid."""
    kept, wanted = [(t, sigma) for t in (40, 70, 100) for sigma in (0.05, 0.1)], (90, 0.08)
    found = mixture(*zip(*kept, strict=True), *wanted)
    grid = (np.arange(200_000) + 0.5) / 2000
    known, target = np.stack([profile(*one, grid) for one in kept]), profile(*wanted, grid)

    def distance(weights):
        return np.linalg.norm(weights @ known - target) / np.linalg.norm(target)

    assert found.weights.sum() == pytest.approx(1, abs=1e-12)
    assert found.error == pytest.approx(distance(found.weights), rel=1e-3)
    for seed in range(5):
        away = np.random.default_rng(seed).standard_normal(len(kept)) * 1e-2
        assert distance(found.weights + away - away.mean()) > found.error


def test_a_stored_profile_is_itself():
    steps, sigmas = np.repeat(np.arange(1, 51) * 100, 2), [0.05, 0.1] * 50
    for index in (0, 41, 99):
        found = mixture(steps, sigmas, steps[index], sigmas[index])
        np.testing.assert_allclose(found.weights, np.eye(100)[index], atol=1e-8)
        assert found.error < 1e-6
    # A snapshot that is there twice is no harm.
    assert mixture([9, 9], [0.1, 0.1], 9, 0.1).weights == pytest.approx([0.5, 0.5])


LONG, EVERY, DIM = 2000, 100, 64


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Snapshots of two averages of a random walk far from 0, and a part that does not move; and a third average."""
    folder = tmp_path_factory.mktemp("averages")
    walk = np.random.default_rng(1).standard_normal((LONG, DIM)).cumsum(0).astype(np.float32) + 300
    tracked = {sigma: followed(power(sigma), walk) for sigma in (0.05, 0.075, 0.1)}

    def tree(row):
        return {"b": {"w": row.reshape(8, 8)}, "a": np.float32(0.1)}

    for step in range(EVERY, LONG + 1, EVERY):
        for sigma in (0.05, 0.1):
            snapshots.save(folder, sigma, step, tree(tracked[sigma][step - 1]))
    return SimpleNamespace(folder=folder, tracked=tracked, template=jax.eval_shape(lambda: tree(jnp.zeros(DIM))))


UNASKED = dict.fromkeys(("pretrained", *resolve.OF_PUBLISHED))


def made(kept, sigma, step=None, folder=None):
    return snapshots.post_hoc(snapshots.found(folder or kept.folder), sigma, step, kept.template)


@pytest.mark.parametrize(("step", "times"), [(None, 50), (1100, 50), (1050, 4)])
def test_a_third_average_comes_out_of_two(kept, step, times):
    """At a step of snapshots, and between two. What was tracked is met, where the nearest snapshot is far off.

    One walk of 64 coordinates; its numbers do not change from run to run.
    """
    last = step or LONG
    found, expected = made(kept, 0.075, step), kept.tracked[0.075][last - 1]
    assert found.step == last
    error = np.linalg.norm(found.params["b"]["w"].ravel() - expected)
    nearest = min(
        np.linalg.norm(kept.tracked[sigma][at - 1] - expected)
        for sigma in (0.05, 0.1)
        for at in range(EVERY, LONG + 1, EVERY)
    )
    assert error < nearest / times
    assert found.params["a"] == np.float32(0.1)  # exactly
    assert found.params["b"]["w"].dtype == np.float32


def test_a_stored_average_is_read_as_it_is(kept):
    np.testing.assert_allclose(made(kept, 0.1, 700).params["b"]["w"].ravel(), kept.tracked[0.1][699], rtol=1e-6)


def test_what_cannot_be_made_is_said(kept, tmp_path):
    with pytest.raises(InputError, match="no snapshots of averages; train with"):
        made(kept, 0.1, folder=tmp_path)
    for step in (0, LONG + 1):
        with pytest.raises(InputError, match=f"no average of step {step}; the newest snapshot is of step {LONG}"):
            made(kept, 0.1, step)
    with pytest.raises(InputError, match=r"sigma_rel is 0\.3"):
        made(kept, 0.3)
    snapshots.save(tmp_path, 0.1, 7, {"a": np.float32(1)})
    with pytest.raises(InputError, match=r"00000007\.safetensors is not of this network"):
        made(kept, 0.1, folder=tmp_path)


def test_a_damaged_snapshot_is_noticed(kept, tmp_path):
    path = snapshots.save(tmp_path, 0.1, 7, jax.tree.map(lambda x: np.ones(x.shape, x.dtype), kept.template))
    assert made(kept, 0.2, folder=tmp_path).params["a"] == 1
    content = path.read_bytes()
    path.write_bytes(content[:-3] + bytes([content[-3] ^ 1]) + content[-2:])
    with pytest.raises(InputError, match="is damaged"):
        made(kept, 0.2, folder=tmp_path)


def test_a_snapshot_is_not_overwritten_by_others_values(tmp_path, capsys):
    path = snapshots.save(tmp_path, 0.1, 7, {"w": np.ones(3, np.float32)})
    before = path.read_bytes(), path.stat().st_mtime_ns
    assert snapshots.save(tmp_path, 0.1, 7, {"w": np.ones(3, np.float32)}) == path
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert not capsys.readouterr().err
    for value in (2, 3):
        snapshots.save(tmp_path, 0.1, 7, {"w": np.full(3, value, np.float32)})
        assert "was there with other values; moved to" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name + end for end in ("", ".1", ".2")]
    assert path.with_name(path.name + ".1").read_bytes() == before[0]
    assert [(s.sigma_rel, s.step) for s in snapshots.found(tmp_path)] == [(0.1, 7)]


def test_a_folder_that_cannot_be_written_stops_the_run(tmp_path):
    (tmp_path / "averages").write_text("")
    with pytest.raises(RunError, match=r"cannot write .*free disk space"):
        snapshots.save(tmp_path / "averages", 0.1, 7, {"w": np.ones(3, np.float32)})


# ---- In training.


LAST = 7


def config():
    values = points.default_config()
    values.model.update(features=8, layers=1)
    values.train.update(batch_size=16, steps=LAST, warmup_steps=1, learning_rate=0.1)
    values.train.update(ema_decay=0.5, ema_decays=(0.8,), ema_profiles=(0.1, 0.25))
    values.log.update(every=1, checkpoint_every=1, keep=100, sample_every=0, snapshot_every=2)
    return values


def build(values):
    return points.build(values, lambda split: toys.swiss_roll(100))


def trained(folder, values):
    return jax.device_get(loop.fit(build(values), values, folder, devices=jax.devices()[:1]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, trained(folder, config())


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_averages_of_a_run_are_sums_of_its_parameters(whole):
    """Every step's parameters are kept here; all averages by hand."""
    folder, state = whole
    experiment = build(config())
    params = [resolve.parameters(folder, experiment, "params", step)[1] for step in range(1, LAST + 1)]
    t, index = np.arange(LAST + 1) / LAST, np.arange(LAST)
    weights = {decay: decay ** index[::-1] * np.where(index == 0, 1, 1 - decay) for decay in (0.5, 0.8)}
    expected = {"ema": weights[0.5], "0.8": weights[0.8]}
    expected |= {f"sigma_rel_{sigma}": np.diff(t ** (exponent(sigma) + 1)) for sigma in (0.1, 0.25)}
    assert {*state.averages, "ema"} == expected.keys()
    for name, weight in expected.items():
        found = state.ema if name == "ema" else state.averages[name]
        by_hand = jax.tree.map(lambda *rows: np.tensordot(weight, rows, 1), *params)  # noqa: B023
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), found, by_hand)
    # Control: they differ by more than that.
    for one, other in (("0.8", "sigma_rel_0.25"), ("sigma_rel_0.1", "sigma_rel_0.25")):
        apart = jax.tree.map(lambda x, y: abs(x - y).max(), state.averages[one], state.averages[other])
        assert max(jax.tree.leaves(apart)) > 1e-2


def test_every_average_is_drawn_with_by_its_name(whole):
    folder, state = whole
    experiment = build(config())

    def asked(raw=False, average=None, sigma_rel=None):
        which = resolve.which(SimpleNamespace(**UNASKED, raw=raw, average=average, sigma_rel=sigma_rel))
        params, about, place = resolve.trained(folder, experiment, which).load()
        assert about == f"{which.kind} of step {LAST}"
        return params, place("ddim").name

    found = {
        "ddim_00000007": (asked(), state.ema),
        "ddim_00000007_raw": (asked(raw=True), state.params),
        "ddim_00000007_0.8": (asked(average="0.8"), state.averages["0.8"]),
        "ddim_00000007_sigma_rel_0.1": (asked(average="sigma_rel_0.1"), state.averages["sigma_rel_0.1"]),
    }
    for name, ((params, folder_name), expected) in found.items():
        assert folder_name == name
        same(params, expected)
    params, name = asked(sigma_rel=0.25)
    assert name == "ddim_00000007_post_hoc_0.25"
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, params, state.averages["sigma_rel_0.25"])


def snapshots_in(folder):
    return {path.name: path.read_bytes() for path in (folder / "averages").iterdir()}


def test_a_run_that_was_stopped_ends_as_the_unbroken_one(whole, tmp_path, monkeypatch):
    """Stopped by a signal after a step of snapshots, and killed before the checkpoint of another.

    Snapshots stay though checkpoints do not, and the last is of the end.
    """
    values = config()
    values.log.keep = 1
    stop = SimpleNamespace(signal=15, requested=lambda call: call == 2)
    with monkeypatch.context() as patch:
        patch.setattr(loop.interrupt, "listening", lambda: contextlib.nullcontext(stop))
        with pytest.raises(SystemExit):
            trained(tmp_path, values)
    assert len(snapshots_in(tmp_path)) == 2  # both of step 2, though the run ended there

    save = Checkpoints.save

    def killed(self, state, position):
        if int(state.step) == 4:
            raise KeyboardInterrupt
        save(self, state, position)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path, values)
    assert max(s.step for s in snapshots.found(tmp_path / "averages")) == 4
    same(trained(tmp_path, values), whole[1])
    assert snapshots_in(tmp_path) == snapshots_in(whole[0])
    assert [s.step for s in snapshots.found(tmp_path / "averages")] == [2, 2, 4, 4, 6, 6, LAST, LAST]
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.steps() == [LAST]


def test_a_run_from_before_there_were_averages_goes_on(tmp_path):
    """Its config.json does not have the keys: it has no further averages, and cannot be given some."""
    values = config()
    values.train.update(ema_decays=(), ema_profiles=())
    workdir.claim(tmp_path, values, None)
    stored = json.loads((tmp_path / "config.json").read_text())
    for key in ("ema_decays", "ema_profiles"):
        del stored["config"]["train"][key]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert configs.from_json(config(), stored["config"]).to_dict() == values.to_dict()
    with pytest.raises(InputError, match=r"train.ema_decays = \[\] there, \[0.8\] here"):
        workdir.claim(tmp_path, config(), None)
    workdir.claim(tmp_path, values, None)
