"""The papers' tables in small: their numbers against other commands, compositions by hand, and closed forms."""

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from diffusion_jax import config, evaluate, make_sample_fn, train
from diffusion_jax.app import resolve, sampling
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import images, sources
from diffusion_jax.diffusion import guidance, parameterizations, processes, samplers, schedules, timesteps
from diffusion_jax.evaluation import extractors, frechet, protocol
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import Chain, compose
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.experiment import SampleRequest
from experiments.tables import ddim, ema, progressive, shared
from experiments.tables import samplers as equal
from tests import tiny
from tests.commands.test_cli import run as command

pytestmark = pytest.mark.slow

T, NUM = 21, 24
SET = ("--num", NUM, "--batch", NUM)
CONFIGS = Path(__file__).parent.parent.parent / "configs"


class Network(nn.Module):
    """Compiles at once; U-Nets are tested elsewhere."""

    outputs: int

    @nn.compact
    def __call__(self, x, time, dropout_keys=None):
        told = nn.Dense(4)(jnp.sin(time / 7)[:, None])[:, None, None]
        return nn.Conv(self.outputs, (3, 3))(jnp.tanh(nn.Conv(4, (3, 3))(x) + told))


@pytest.fixture(scope="module", autouse=True)
def simple():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "unet", lambda config, outputs=1: Network(outputs * config.data.shape[-1]))
        yield


@pytest.fixture(scope="module")
def folder(simple, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "digits"
    options = ("--config.train.steps=2", f"--config.diffusion.timesteps={T}")
    assert command(train.main, "--config", tiny.__file__, "--workdir", folder, *options) == 0
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return shared.opened_run(SimpleNamespace(workdir=folder, config=None))


def table(main, folder, tmp_path, *options):
    """The report that a table's command writes."""
    assert command(main, "--workdir", folder, *options, "--json", tmp_path / "table.json") == 0
    return protocol.read(tmp_path / "table.json")


def evaluated(folder, tmp_path, *options):
    """The report of diffusion_jax.evaluate."""
    given = ("--workdir", folder, "--extractor", "digits", "--batch", NUM, "--out", tmp_path / "evaluation")
    assert command(evaluate.main, *given, *options) == 0
    return protocol.read(tmp_path / "evaluation" / "evaluation.json")


# ---- DDIM.


@pytest.fixture(scope="module")
def ddim_table(folder, tmp_path_factory):
    return table(ddim.main, folder, tmp_path_factory.mktemp("ddim"), "--steps", f"3,{T}", "--etas", "1", *SET)


def test_ddim_s_entries_are_those_of_evaluate(folder, ddim_table, tmp_path):
    found = ddim_table["metrics"]
    assert list(found) == [f"{row}, {n} steps" for row in ("eta 1", "fixed large") for n in (3, T)]
    report = evaluated(folder, tmp_path, "--num", NUM, "--sampler", "ddim", "--steps", 3, "--eta", 1)
    assert found["eta 1, 3 steps"] == pytest.approx(report["metrics"]["Fréchet distance"], rel=1e-6)
    ours = {name: value for name, value in ddim_table["protocol"].items() if name != "metrics"}
    assert ours == {name: report["protocol"][name] for name in ours}
    assert ddim_table["subject"]["weights_sha256"] == report["subject"]["weights_sha256"]


def test_the_last_row_of_the_whole_chain_is_ddpm_s(folder, ddim_table, tmp_path):
    """All T steps, where its grid and DDPM's are one; the other variance is another number."""
    report = evaluated(folder, tmp_path, "--num", NUM, "--sampler", "ancestral")
    expected = report["metrics"]["Fréchet distance"]
    assert ddim_table["metrics"][f"fixed large, {T} steps"] == pytest.approx(expected, rel=1e-4)
    assert ddim_table["metrics"][f"eta 1, {T} steps"] != pytest.approx(expected, rel=1e-4)


def test_images_are_kept_and_the_paper_stands_beside(folder, ddim_table, tmp_path, capsys):
    kept_images = {path: path.stat().st_mtime_ns for path in (folder / "tables" / "images").rglob("*.npz")}
    assert kept_images
    again = table(ddim.main, folder, tmp_path, "--steps", f"3,{T}", "--etas", "1", *SET)
    assert again["metrics"] == ddim_table["metrics"]
    assert all(path.stat().st_mtime_ns == before for path, before in kept_images.items())
    output = capsys.readouterr()
    assert output.err.count("are there already") == 4
    assert f"| eta 1 | {ddim_table['metrics']['eta 1, 3 steps']:.2f} |" in output.out
    assert "| fixed large | 367.43 | 133.37 | 32.72 | 9.99 | 3.17 |" in output.out


def test_the_quadratic_grid_is_walked(run, ddim_table, folder, tmp_path):
    found = table(ddim.main, folder, tmp_path, "--steps", "3", "--etas", "1", "--grid", "quadratic", *SET)
    assert found["metrics"]["eta 1, 3 steps"] != ddim_table["metrics"]["eta 1, 3 steps"]
    chain = shared.changed(
        run.experiment.method.chains["ddim"], lambda chain: chain._replace(times=timesteps.quadratic(3, T))
    )
    quadratic = shared.sampler_of(run, chain)
    assert found["metrics"]["eta 1, 3 steps"] == pytest.approx(distance(run, quadratic, 3, eta=1.0), rel=1e-6)


# ---- Samplers.


def distance(run, make, steps, eta=None):
    """The Fréchet distance to the training digits of what `make` draws, all in one call."""
    keys = rng.per_example(rng.stream(jax.random.key(0), "sample"), jnp.arange(NUM))
    drawn = sampling.draw(make, run.averaged().params, keys, (), SampleRequest(1, steps, eta), NUM)
    real = np.stack([example["image"] for example in sources.digits("train")])
    features = [extractors.digits().features(x)["features"] for x in (real, images.to_uint8(drawn))]
    return frechet.distance(*map(frechet.moments, features))


def test_evaluations_are_counted_and_paid_for(run):
    makes = equal.chosen(run, ["ancestral", "ddim", "euler", "heun", "dpmpp_2m", "dpmpp_2m_sde"])
    counted = {name: equal.evaluations(run.experiment, make, 4) for name, make in makes.items()}
    assert counted == dict.fromkeys(makes, 4) | {"heun": 7}
    affordable = partial(equal.affordable, run.experiment)
    assert [affordable(makes["heun"], budget) for budget in (0, 1, 2, 10, 35)] == [0, 1, 1, 5, 18]
    assert [affordable(makes["euler"], budget) for budget in (0, 1, 10)] == [0, 1, 10]


def test_a_borrowed_sampler_is_the_one_composed_by_hand(folder, run, tmp_path, capsys):
    report = table(equal.main, folder, tmp_path, "--samplers", "ddim,heun", "--evaluations", "3,5", *SET)
    steps = {"ddim, 3 evaluations": 3, "ddim, 5 evaluations": 5, "heun, 3 evaluations": 2, "heun, 5 evaluations": 3}
    assert report["steps"] == steps
    assert "| heun |" in capsys.readouterr().out

    schedule = schedules.from_betas(schedules.linear_betas(T))
    model = pixels.unet(run.config)

    def make(request):
        return make_sample_fn(
            lambda params, x, time: model.apply({"params": params}, x, time),
            parameterizations.eps(schedule, parameterizations.table_index(T)),
            processes.gaussian(schedule),
            samplers.heun(schedule),
            timesteps.uniform(request.steps, T),
            request.batch,
            (8, 8, 1),
            [guidance.clip()],
        )

    assert report["metrics"]["heun, 5 evaluations"] == pytest.approx(distance(run, make, 3), rel=1e-4)
    assert report["metrics"]["heun, 5 evaluations"] != pytest.approx(distance(run, make, 5), rel=1e-4)  # control


SCHEDULES = {
    "digits": lambda: schedules.from_betas(schedules.linear_betas(1000)),
    "improved": lambda: schedules.from_betas(schedules.cosine_betas(1000)),
    "flow": schedules.flow,
    "edm": schedules.edm,
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_schedule_is_that_of_the_method(name):
    module = config.load(CONFIGS / f"{name}.py")
    values = module.get_config()
    found = shared.schedule_of(shared.Run(Path(name), values, module.build(values)))
    t = np.linspace(0.001, 1, 1000)
    np.testing.assert_array_equal(found.alpha(t), SCHEDULES[name]().alpha(t))
    np.testing.assert_array_equal(found.sigma(t), SCHEDULES[name]().sigma(t))


def test_a_method_without_a_schedule_is_refused(run):
    method = run.experiment.method._replace(schedule=None)
    with pytest.raises(InputError, match="ancestral, ddim"):
        shared.schedule_of(run._replace(experiment=compose(run.config, method)))
    with pytest.raises(InputError, match="composes no method"):
        shared.schedule_of(run._replace(experiment=run.experiment._replace(method=None)))


# ---- Progressive.


def test_rate_and_distortion_are_the_bound_s(folder, run, tmp_path, capsys):
    some = ("--examples", 16, "--steps", 10, "--batch", 8)
    report = table(progressive.main, folder, tmp_path, *some)
    expected = evaluated(folder, tmp_path, *some, "--num", 0, "--likelihood", "bound")["metrics"]
    for name, value in expected.items():
        if name in report["metrics"]:
            assert report["metrics"][name] == pytest.approx(value, rel=1e-5)
    assert report["metrics"].keys() & expected.keys() == {
        "bound, bits an entry",
        "bound, rate",
        "bound, distortion",
    }
    received, rmse = np.array(report["received"]), np.array(report["rmse"])
    assert received[-1] == pytest.approx(report["metrics"]["bound, rate"], rel=1e-5)
    assert (np.diff(received) > 0).all()

    x0 = images.to_float(np.stack([sources.digits("test")[i]["image"] for i in range(16)]))
    keys = rng.per_example(rng.stream(jax.random.key(0), "likelihood"), np.arange(16))
    bound = jax.jit(run.experiment.measures.likelihoods["bound"](10))(run.averaged().params, keys, x0)
    np.testing.assert_allclose(received, bound.received.mean(0), rtol=1e-4)
    np.testing.assert_allclose(rmse, 127.5 * np.sqrt(bound.mse_x0.mean(0)), rtol=1e-4)
    output = capsys.readouterr().out
    assert f"| 10 of 10 | {received[-1]:.5f} | {rmse[-1]:.5f} |" in output
    assert "| 1000 of 1000 | 1.77581 | 0.95136 |" in output
    for name in ("rate_distortion", "x0_hat"):
        Image.open(folder / "tables" / f"{name}.png").verify()


def test_a_film_of_estimates_ends_on_the_sample(run):
    """The last step of DDPM's chain arrives at its estimate; on the way an estimate is what the network said."""
    make, params = run.experiment.sampling.samplers["ancestral"], run.averaged().params
    keys = jax.random.split(jax.random.key(1), 4)
    estimates = shared.sampler_of(
        run, shared.changed(run.experiment.method.chains["ancestral"], progressive.estimating)
    )
    film = sampling.film(estimates, params, keys, (), SampleRequest(4, 5))
    sample = jax.jit(make(SampleRequest(4, 5)))(params, keys)
    np.testing.assert_allclose(film[-1], sample, atol=1e-5)
    assert film.shape == (6, 4, 8, 8, 1)

    def denoise(x, t):
        return Gaussian(jnp.full_like(x, t))

    times = timesteps.linear(4, first=0.8)
    chain = progressive.estimating(Chain(samplers.heun(schedules.flow()), times))
    shown = samplers.film(chain.sampler, times, denoise, jnp.zeros((1, 2)), keys[:1], frames=4)[1]
    np.testing.assert_allclose(shown[1:, 0, 0], times[:-1], rtol=1e-6)


# ---- Averages.


@pytest.fixture(scope="module")
def ema_table(folder, tmp_path_factory):
    options = ("--rates", "0,0.5,0.9999", "--train-steps", 2, "--sampler", "ddim", "--steps", 3, *SET)
    return table(ema.main, folder, tmp_path_factory.mktemp("ema"), *options)


def test_averages_are_those_of_one_unchanged_training(folder, run, ema_table):
    averages, raw = ema.trained(run, 2, [0, 0.5, 0.9999])  # there already
    same = partial(jax.tree.map, np.testing.assert_array_equal)
    same(raw, resolve.parameters(folder, run.experiment, "params")[1])
    same(averages["0"], raw)
    template = jax.eval_shape(run.experiment.task.init, jax.random.key(0))
    with Checkpoints(folder / "tables" / "ema_0_0.5_0.9999" / "checkpoints") as checkpoints:
        same(averages["0.9999"], checkpoints.restore("ema", template)[1])
    # The first of the two steps leaves the start as it is: the learning rate begins at 0.
    start = run.experiment.task.init(rng.stream(jax.random.key(run.config.seed), "init"))
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(lambda x, a, b: close(x, (a + b) / 2), averages["0.5"], start, raw)


def test_the_parameters_themselves_are_a_row(folder, ema_table, tmp_path):
    found = ema_table["metrics"]
    assert list(found) == [f"{row}, 2 steps" for row in ("0", "0.5", "0.9999", "raw")]
    assert found["0, 2 steps"] == found["raw, 2 steps"]
    report = evaluated(folder, tmp_path, "--num", NUM, "--sampler", "ddim", "--steps", 3, "--raw")
    assert found["raw, 2 steps"] == pytest.approx(report["metrics"]["Fréchet distance"], rel=1e-6)


# ---- What cannot be.


MISTAKES = {
    "sampler": (equal.main, ["--samplers", "dpm"], "choose from ancestral, ddim, euler"),
    "no step": (equal.main, ["--samplers", "ancestral", "--evaluations", "0"], "larger --evaluations"),
    "one image": (equal.main, ["--num", "1"], "--num 1"),
    "too many steps": (ddim.main, ["--steps", "30"], "1, ..., 21, not 30"),
    "quadratic": (ddim.main, ["--steps", "9", "--grid", "quadratic"], "at most 8"),
    "extractor": (equal.main, ["--evaluations", "3", "--extractor", "nothing.pth"], "nothing.pth"),
    "rate": (ema.main, ["--rates", "1"], "[0, 1)"),
    "no eta": (ema.main, ["--sampler", "heun"], "choose from ancestral, ddim"),
}


@pytest.mark.parametrize(("main", "options", "said"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_gets_one_line(folder, main, options, said, capsys):
    assert command(main, "--workdir", folder, *options) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]


def test_trained_too_far_already(run, ema_table):
    with pytest.raises(InputError, match="2 steps already"):
        ema.trained(run, 1, [0, 0.5, 0.9999])


def test_a_bound_without_a_chain_is_refused():
    with pytest.raises(InputError, match="not that of a chain"):
        progressive.curve(lambda *told: SimpleNamespace(total=jnp.zeros(1)))(None, None, None)


def test_tables_compare_by_the_command(ddim_table, tmp_path, capsys):
    for name in "ab":
        (tmp_path / name).write_text(json.dumps(ddim_table))
    assert command(evaluate.main, "--compare", tmp_path / "a", tmp_path / "b") == 0
    assert "fixed large, 3 steps" in capsys.readouterr().out
