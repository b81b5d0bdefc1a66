"""LPIPS as the distance of a consistency loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import sources
from diffusion_jax.diffusion.few_step import distances, pairs, stages
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.methods import perceptual, pixels
from diffusion_jax.methods.few_step import consistency
from diffusion_jax.models.judges import lpips
from diffusion_jax.pretrained import entries
from diffusion_jax.pretrained.families import lpips as published
from tests import tiny

NARROW = lpips.Trunk(
    (
        lpips.Stage(lpips.unpooled, (lpips.Conv(0, 64),)),
        lpips.Stage(lpips.maximum, (lpips.Conv(3, 2),)),
    ),
    least=2,
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file with both parts of an LPIPS of a narrow trunk."""
    judge, x = lpips.Lpips(NARROW), jnp.zeros((1, 4, 4, 3))
    params = judge.init(jax.random.key(0), x, x)["params"]
    folder = tmp_path_factory.mktemp("lpips")
    entries.write(params, published.table(params), folder, {})
    return str(folder / "diffusion_pytorch_model.safetensors")


def compared_by(network, heads, shape=(8, 8, 1)):
    config = perceptual.with_lpips(tiny.get_config())
    config.data.shape = shape
    config.lpips.network, config.lpips.heads = network, heads
    return perceptual.either(config, pixels.data(config, sources.digits), distances.l1, NARROW)


def test_lpips_is_an_argument_of_the_program_and_not_a_part_of_it(weights):
    """Of grey digits, which are shown as colours at 224 x 224; with the gradient of what is differentiated there."""
    distance, held = compared_by(weights, weights)
    config = tiny.get_config()
    data, model = pixels.data(config, sources.digits), pixels.unet(config)
    method = consistency.trained(data, model, stages.constant(5), distance=distance, held=held)
    kept = method.held()
    (params,) = kept.values()

    def apply(w, x, time, dropout_keys=None):
        return w * x

    loss = method.loss(apply, method.parameterization, method.process)
    keys, x0 = jax.random.split(jax.random.key(0), 2), jax.random.normal(jax.random.key(1), (2, 8, 8, 1))
    pair = pairs.Pair(*(jnp.array(each, jnp.float32) for each in ([0.5, 0.1], [0.4, 0.05], [0.2, 0.5])))

    def total(w, held):
        return loss(keys, w, x0, Context(pair, averages={"target": 0.5}, held=held))[0].sum()

    def constants(program, *arguments):
        return sum(np.size(each) for each in jax.make_jaxpr(jax.grad(program))(*arguments).consts)

    size = sum(x.size for x in jax.tree.leaves(params))
    assert constants(total, 0.7, kept) < 500 < size
    assert constants(lambda w: total(w, kept), 0.7) > size  # control: closed over, it would be

    def by_hand(w):
        def f(w, t):
            x_t = jax.vmap(lambda key, x, t: method.process.corrupt(key, x, t)[0])(noise_keys, x0, t)
            return method.parameterization.read(apply(w, *method.parameterization.scale(x_t, t)), x_t, t).mean

        noise_keys = jax.vmap(lambda key: jax.random.split(key, 2)[0])(keys)
        colours = [jnp.repeat(x, 3, axis=-1) for x in (f(w, pair.t), f(0.5, pair.u))]
        large = [jax.image.resize(x, (2, 224, 224, 3), "bilinear") for x in colours]
        return lpips.Lpips(NARROW).apply({"params": params}, *large).sum()

    ours, theirs = jax.jit(lambda w, held: [jax.value_and_grad(f)(w) for f in (lambda w: total(w, held), by_hand)])(
        0.7, kept
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)


def test_where_a_network_sees_nothing_the_gradient_is_0(weights):
    """A length of 0 has no derivative, and ReLUs leave many."""
    _, held = compared_by(weights, weights)
    (params,) = held().values()
    blind = params | {"trunk": jax.tree.map(lambda x: x if x.ndim > 1 else x - 1e3, params["trunk"])}
    x = np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 3)).astype(np.float32)

    @jax.jit
    def slope(params):
        return jax.grad(lambda x: lpips.Lpips(NARROW).apply({"params": params}, x, x[::-1]).sum())(x)

    assert (slope(blind) == 0).all()
    assert np.abs(slope(params)).min() > 0  # control


def test_lpips_in_every_mode(x64):
    """Of any float, and where rank promotion is forbidden: float32."""
    x, judge = jnp.zeros((2, 4, 4, 1), jnp.float64), lpips.Lpips(NARROW)

    def compared(x):
        one, other = lpips.enlarged(x, 8), lpips.enlarged(x.astype(jnp.bfloat16), 8)
        return judge.init_with_output(rng.root(0), one, other)[0]

    with jax.numpy_rank_promotion("raise"):
        assert jax.eval_shape(compared, x).dtype == jnp.float32
        assert jax.eval_shape(jax.vmap(compared), x[None]).shape == (1, 2)


def test_without_files_the_distance_is_another():
    assert compared_by("", "") == (distances.l1, dict)


REFUSED = {
    "one file of two": (("a.pth", ""), r"two files; beside --config.lpips.network give --config.lpips.heads"),
    "the other one": (("", "a.pth"), r"two files; beside --config.lpips.heads give --config.lpips.network"),
    "points": (("a.pth", "b.pth", (2,)), r"images of 1 or 3 channels, not \(2,\); leave --config.lpips.\* out"),
    "latents": (("a.pth", "b.pth", (8, 8, 4)), r"images of 1 or 3 channels, not \(8, 8, 4\)"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_files_and_data_that_do_not_go_together(what):
    given, message = REFUSED[what]
    with pytest.raises(InputError, match=message):
        compared_by(*given)


def test_files_that_are_not_lpips(weights, tmp_path):
    with pytest.raises(InputError, match=r"cannot read .*nothing\.pth"):
        compared_by(weights, str(tmp_path / "nothing.pth"))[1]()
    with pytest.raises(InputError, match=r"are not weights of this LPIPS .* give torchvision's"):
        published.load(weights, weights, lpips.alexnet())
    with pytest.raises(InputError, match=r"images of 8 x 15 pixels are too small .* enlarge them to 16 x 16"):
        jax.eval_shape(lpips.vgg16().init, jax.random.key(0), jnp.zeros((1, 8, 15, 3)))
    with pytest.raises(InputError, match=r"1 or 3 channels, \[B, H, W, C\], not \[1, 32, 32, 4\]"):
        jax.eval_shape(lpips.Lpips(NARROW).init, jax.random.key(0), *[jnp.zeros((1, 32, 32, 4))] * 2)
