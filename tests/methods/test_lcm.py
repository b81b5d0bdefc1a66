"""Latent consistency, of data N(0, S^2) and its best denoiser."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.config import load
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import sources
from diffusion_jax.diffusion import parameterizations, processes, schedules
from diffusion_jax.diffusion.few_step import latent
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import Method
from diffusion_jax.methods.few_step import lcm
from tests.config.test_configs import FOLDER

S, NUM = 0.5, 1000
TABLE = schedules.from_betas(schedules.quadratic_betas(NUM, 0.00085, 0.012))


class Linear(NamedTuple):
    """A network that says eps where x0 is c x_t, with a number c for each entry."""

    def apply(self, variables, x, index, dropout_keys=None):
        t = (index[:, None] + 1) / NUM
        x0 = jnp.asarray(variables["params"])[jnp.int32(index)][:, None] * x
        return (x - TABLE.alpha(t) * x0) / TABLE.sigma(t)


def test_the_whole_chain_of_the_teacher_in_one_look_has_no_loss():
    """The product of the factors of its DDIM steps, from every entry to index 0. Control: the teacher itself."""
    says = parameterizations.eps(TABLE, parameterizations.table_index(NUM))
    data = pixels.data(pixels.config_digits(), sources.digits)
    teacher = Method(data, Linear(), processes.gaussian(TABLE), says, None, None, {}, "", schedule=TABLE)
    config = lcm.with_entries(pixels.config_digits())
    config.distill.target_decay = 0.0
    method = lcm.method(config, teacher, NUM, read=lambda: {"c": 1})
    assert method.averages == {}
    assert method.held() == {"teacher": {"c": 1}}

    t = np.arange(1, NUM + 1) / NUM
    alpha, sigma = TABLE.alpha(t), TABLE.sigma(t)
    best = alpha * S**2 / (alpha**2 * S**2 + sigma**2)
    student, grid = best.copy(), np.rint(NUM * latent.training_grid()).astype(int) - 1
    reached = 1.0
    for i, j in zip(grid[-2::-1], grid[:0:-1], strict=True):
        reached *= sigma[j] / sigma[i] + (alpha[j] - sigma[j] / sigma[i] * alpha[i]) * best[i]
        student[i] = reached

    keys, x0 = jax.random.split(jax.random.key(0), 64), S * jax.random.normal(jax.random.key(1), (64, 5))
    pair, _ = method.times.draw(method.times.init(), jax.random.key(2), jnp.arange(64), 64)

    def apply(params, *inputs, **dropout):
        return Linear().apply({"params": params}, *inputs, **dropout)

    loss = method.loss(apply, method.parameterization, method.process)
    exact, control = (
        loss(keys, jnp.float32(c), x0, Context(pair, held={"teacher": jnp.float32(best)}))[0] for c in (student, best)
    )
    assert exact.max() < 1e-5
    assert control.mean() > 2e-3


def test_a_latent_consistency_student_keeps_to_what_it_has_learned():
    page = load(FOLDER / "lcm.py")
    method = page.build(page.get_config()).method
    for steps in (1, 2, 49):
        assert len(method.chains["multistep"](steps).times) == steps + 1
    with pytest.raises(InputError, match=r"must lie in 1, \.\.\., 49, not 50"):
        method.chains["multistep"](50)
    with pytest.raises(InputError, match=r"guidance 5\.5: this model knows scales from 1 to 5"):
        method.guide(5.5)
    with pytest.raises(InputError, match="there is no teacher"):
        method.held()
    for name, value, said in (
        ("guidance", 7.0, "guidance = 7 of the config: this model is told scales from 1 to 5"),
        ("original", 1001, "of a table of 1000 entries between 1 and 1000 are distilled"),
        ("original", 600, "take a number that divides 1000"),
    ):
        config = page.get_config()
        config.distill[name] = value
        with pytest.raises(InputError, match=said):
            page.build(config)
