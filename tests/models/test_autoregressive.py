"""Networks of tokens in raster order: what each token is told, laws that sum to 1, and mistakes in one line."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import likelihood, parameterizations
from diffusion_jax.models import GatedPixelCNN
from diffusion_jax.models.blocks.conditioning import LabelEmbedding
from tests.models.raster_tiny import KINDS, made, redrawn

pytestmark = pytest.mark.slow


def dependence(name, shape, vocab=3):
    """Which token's logits change with which token: bool [changed, looked at], in raster order."""
    wide = 12 * shape[-1]  # where few are, those that a relu lets pass are fewer
    model, size = made(name, vocab, features=wide, head_features=wide), np.prod(shape)
    pictures = np.broadcast_to(np.random.default_rng(1).integers(0, vocab, shape), (size + 1, *shape))
    x = pictures.astype(np.int32).reshape(size + 1, size)
    x[np.arange(size), np.arange(size)] = (x[np.arange(size), np.arange(size)] + 1) % vocab
    x = x.reshape(size + 1, *shape)
    params = redrawn(model, x)
    logits = jax.jit(lambda x: model.apply({"params": params}, x, None))(x)
    assert (logits.shape, logits.dtype) == ((size + 1, *shape, vocab), jnp.float32)
    each = np.asarray(logits).reshape(size + 1, size, vocab)
    return (each[:-1] != each[-1:]).any(-1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", KINDS)
def test_a_token_is_told_of_all_that_comes_before_it_and_of_nothing_else(name, channels):
    """The plain masked stack is the control: it is blind to a wedge above and to the right."""
    side = 7 if channels == 1 else 4
    found = dependence(name, (side, side, channels))
    before = np.triu(np.ones_like(found), 1)
    assert not found[~before].any()
    blind = np.argwhere(before & ~found) // channels
    if name == "MaskedPixelCNN":
        rows, columns = np.divmod(blind.T, side)
        assert len(blind) > side
        assert (columns[0] - columns[1] > rows[1] - rows[0]).all()  # a 3x3 window goes one to the right a row
    else:
        assert not len(blind)


PICTURES = [
    ("GatedPixelCNN", (3, 3, 1), 2, {"layers": 3}),
    ("GatedPixelCNN", (1, 2, 3), 2, {"layers": 2}),
    ("MaskedPixelCNN", (2, 2), 4, {"layers": 2}),
    ("PixelSNAIL", (2, 3, 1), 3, {"repeats": 1}),
    ("PixelSNAIL", (2, 1, 3), 2, {"repeats": 1}),
]


@pytest.mark.parametrize(("name", "shape", "vocab", "fields"), PICTURES)
def test_the_probabilities_of_all_small_pictures_sum_to_one(name, shape, vocab, fields, x64):
    """In float64; where each token is told of itself as well (mask B in the first layer) they do not."""
    size = np.prod(shape)
    x = jnp.asarray(list(product(range(vocab), repeat=size)), jnp.int32).reshape(-1, *shape)
    model = made(name, vocab, dtype=jnp.float64, **fields)
    params = redrawn(model, x)
    keys = rng.per_example(rng.root(0), jnp.arange(len(x)))

    def exact(x, moved):
        def apply(params, x, t):
            return model.apply({"params": params}, jnp.roll(x.reshape(len(x), -1), moved, 1).reshape(x.shape), t)

        return likelihood.make_exact_fn(apply, parameterizations.logits(lambda t: t))(params, keys, x)

    found, leaking = (jax.jit(exact)(x, moved) for moved in (0, -1))
    assert found.log_prob.dtype == jnp.float64
    assert abs(jnp.exp(found.log_prob).sum() - 1) < 1e-12
    assert abs(jnp.exp(leaking.log_prob).sum() - 1) > 1e-3
    np.testing.assert_allclose(found.total, -found.log_prob / size / np.log(2), rtol=1e-12)


def test_what_is_not_known_yet_is_nothing_and_a_strange_token_is_nan():
    model = made("GatedPixelCNN", 3, layers=2)
    x = np.random.default_rng(0).integers(0, 3, (4, 3, 3)).astype(np.int32)
    params = redrawn(model, x)
    apply = jax.jit(lambda x: model.apply({"params": params}, x, None))
    hidden = x.copy()
    hidden[1, 1, 1:] = hidden[1, 2] = 3
    hidden[2:, 0, 1] = (4, -1)
    found, known = apply(hidden), apply(x)
    np.testing.assert_array_equal(found[0], known[0])
    np.testing.assert_array_equal(found[1].reshape(9, 3)[:5], known[1].reshape(9, 3)[:5])
    assert jnp.isfinite(found[1]).all()
    assert jnp.isnan(found[2:]).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("name", ["GatedPixelCNN", "PixelSNAIL"])
def test_conditions_dropout_and_half_precision(name):
    """Masks of dropout depend on an example's own key; a label and a map change what is said; logits are float32."""
    fields = {"embed": {"label": LabelEmbedding(4)}, "maps": ("top",), "dropout": 0.5}
    fields |= {"layers": 2} if name == "GatedPixelCNN" else {"repeats": 1}
    model, half = (made(name, 5, dtype=dtype, **fields) for dtype in (jnp.float32, jnp.bfloat16))
    numbers = np.random.default_rng(0)
    x = jnp.asarray(np.repeat(numbers.integers(0, 5, (1, 4, 4)), 4, 0), jnp.int32)
    cond = {"label": jnp.array([0, 1, 0, 0]), "top": jnp.zeros((4, 4, 4, 2)).at[2].set(1.0)}
    params = redrawn(model, x, cond)
    keys = rng.per_example(rng.root(0), jnp.array([0, 0, 0, 1]))

    @jax.jit
    def said(keys):
        shown = {"params": params}, x, None, cond
        return model.apply(*shown), half.apply(*shown), model.apply(*shown, keys)

    still, coarse, dropped = said(keys)
    for other in (1, 2):
        assert jnp.abs(still[other] - still[0]).max() > 1e-3
    np.testing.assert_array_equal(still[3], still[0])
    assert jnp.abs(dropped[3] - dropped[0]).max() > 1e-3
    assert coarse.dtype == jnp.float32
    assert 0 < jnp.abs(coarse - still).max() < 0.1 * jnp.abs(still).max()


@pytest.mark.parametrize(
    ("fields", "tokens", "said"),
    [
        ({"side": 4}, (1, 4, 4), "side 4: a window of pixels has an odd side of 3 or more; take 5"),
        ({"first_side": 1}, (1, 4, 4), "first_side 1: a window of pixels has an odd side of 3 or more; take 3"),
        ({"features": 8}, (1, 4, 4, 3), "features 8 do not divide into the 3 channels of a pixel; take a multiple"),
        ({"head_features": 8}, (1, 4, 4, 3), "head_features 8 do not divide into the 3 channels"),
        ({}, (1, 4), r"int32\[1, 4\]: tokens are integers"),
        ({"maps": ("top",)}, (1, 4, 4), "needs the condition 'top'"),
        ({"dropout": 1.0}, (1, 4, 4), "give a rate in"),
        ({"heads": 5}, (1, 4, 4), "5 heads of attention: take a divisor of the 12 features"),
        ({"heads": 2}, (1, 4, 4, 3), "multiple of the 3 channels of a pixel"),
    ],
)
def test_mistakes_are_one_line(fields, tokens, said):
    model = made("PixelSNAIL" if "heads" in fields else "GatedPixelCNN", 3, **fields)
    with pytest.raises(InputError, match=said):
        jax.eval_shape(lambda x: model.init(rng.root(0), x, None), jax.ShapeDtypeStruct(tokens, jnp.int32))


def test_mistakes_in_values_are_one_line():
    x = np.array([[[0, 1], [7, 2]]])
    with pytest.raises(InputError, match="there is no token 7: they run from 0 to 4"):
        GatedPixelCNN(5).init(rng.root(0), x)
    with pytest.raises(InputError, match=r"float32\[1, 2, 2\]: tokens are integers"):
        GatedPixelCNN(5).init(rng.root(0), x.astype(np.float32))
    small = {"top": np.zeros((1, 1, 1, 3))}
    with pytest.raises(InputError, match=r"'top' of shape \[1, 1, 1, 3\] is no map of tokens .* enlarge it to"):
        GatedPixelCNN(8, maps=("top",)).init(rng.root(0), x, None, small)
