"""OpenAI's chains by their flags: every step against their loop, written out here in NumPy's float64.

Networks are closures. The loop below is Ho et al. 2020 (algorithm 2) and Song et al. 2021 (equation 12) on a table of
its own, of the entries that are kept, as Nichol & Dhariwal 2021 (section 4) have it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.pipelines import openai, published
from diffusion_jax.pretrained.families import openai_command
from diffusion_jax.pretrained.published import Network, shape
from diffusion_jax.training.experiment import SampleRequest

NUM, SIDE = 60, 4
KEYS = jax.random.split(jax.random.key(3), 2)
# Indices that are kept of 60, by hand: 5 of 0..59 at a stride of 59 / 4; 2, 3, 1 of three twenties; every 12th.
KEPT = {
    "": list(range(60)),
    "5": [0, 15, 30, 44, 59],
    "2,3,1": [0, 19, 20, 30, 39, 40],
    "ddim5": [0, 12, 24, 36, 48],
}


class Closure:
    """In place of a network: what it says depends on x and on the time it is told, and leaves [-1, 1] when read."""

    def __init__(self, outputs):
        self.outputs = outputs

    def clone(self, dtype):
        """As a module's: it computes in its input's."""
        return self

    def apply(self, variables, x, time, xp=jnp):
        t = time[:, None, None, None] / 100
        heads = [0.7 * xp.sin(3 * x + t) + 0.3 * x, xp.cos(5 * x - t)]
        return xp.concatenate(heads[: self.outputs], axis=-1)


def noise(number):
    keys = rng.each(KEYS, number)
    return np.asarray(jax.vmap(lambda key: rng.flat(jax.random.normal, key, (SIDE, SIDE, 3)))(keys), np.float64)


def cumulative(cosine):
    if cosine:
        bar = np.cos((np.arange(NUM + 1) / NUM + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
    else:
        betas = np.linspace(0.0001, 0.02, NUM) * 1000 / NUM
    return np.cumprod(1 - betas)


def their_loop(flags, kept):
    """What their p_sample and ddim_sample do for the flags, index after index of the shortened table."""
    learned, ddim = "learn_sigma True" in flags, "use_ddim True" in flags
    network, clip = Closure(1 + learned), "clip_denoised False" not in flags
    bar = cumulative("cosine" in flags)[kept]
    before = np.append(1.0, bar[:-1])
    beta = 1 - bar / before
    small = beta * (1 - before) / (1 - bar)
    x = noise(0)
    for step, i in enumerate(reversed(range(len(kept)))):
        told = np.full(2, kept[i] * (1000 / NUM if "rescale_timesteps True" in flags else 1.0))
        said = network.apply(None, x, told, np)
        first = said[..., :3]
        x0 = first if "predict_xstart True" in flags else (x - np.sqrt(1 - bar[i]) * first) / np.sqrt(bar[i])
        x0 = np.clip(x0, -1, 1) if clip else x0
        if ddim:
            eps = (x - np.sqrt(bar[i]) * x0) / np.sqrt(1 - bar[i])
            x = np.sqrt(before[i]) * x0 + np.sqrt(1 - before[i]) * eps
            continue
        mean = (np.sqrt(before[i]) * beta[i] * x0 + np.sqrt(1 - beta[i]) * (1 - before[i]) * x) / (1 - bar[i])
        if learned:
            floor = small[max(i, 1)]
            share = (said[..., 3:] + 1) / 2
            log_var = share * np.log(beta[i]) + (1 - share) * np.log(floor)
        else:
            log_var = np.log(small[max(i, 1)] if "sigma_small True" in flags else beta[i])
        x = mean + (i > 0) * np.exp(log_var / 2) * noise(step + 1)
    return x


def ours(monkeypatch, flags, sampler="published", **request):
    def unet(named):
        model = Closure(2 if named.get("learn_sigma") else 1)
        return Network(model, (shape(1, SIDE, SIDE, 3), shape(1), None), [])

    monkeypatch.setattr(openai.openai_flags, "unet", unet)
    model = published.openai("x.pt", f"--image_size {SIDE} --diffusion_steps {NUM} {flags}")
    return np.asarray(jax.jit(model.samplers[sampler](SampleRequest(2, **request)))({}, KEYS))


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


CHAINS = [
    ("--rescale_timesteps True", ""),
    ("--rescale_timesteps False --sigma_small True --noise_schedule cosine", "5"),
    ("--rescale_timesteps True --learn_sigma True --noise_schedule cosine", "2,3,1"),
    ("--rescale_timesteps False --learn_sigma True --clip_denoised False", "5"),
    ("--rescale_timesteps True --predict_xstart True --learn_sigma True", "ddim5"),
    ("--rescale_timesteps True --learn_sigma True --noise_schedule cosine --use_ddim True", "ddim5"),
    ("--rescale_timesteps False --use_ddim True", "5"),
]


@pytest.mark.parametrize(("flags", "respacing"), CHAINS)
def test_chains_are_theirs(flags, respacing, monkeypatch):
    line = flags + (f" --timestep_respacing {respacing}" if respacing else "")
    theirs = their_loop(flags, KEPT[respacing])
    error = distance(ours(monkeypatch, line), theirs)
    print(error)
    assert error < 1e-4
    # Control: another time is told.
    other = line.replace("rescale_timesteps True", "rescale_timesteps ?").replace("timesteps False", "timesteps True")
    assert distance(ours(monkeypatch, other.replace("?", "False")), theirs) > 1e-2


def test_steps_take_the_place_of_the_flags(monkeypatch):
    """The number that is asked for, spaced as the flags space; and other samplers walk on the flags' grid."""
    flags = "--rescale_timesteps True --timestep_respacing"
    theirs = their_loop(flags, KEPT["5"])
    np.testing.assert_allclose(ours(monkeypatch, f"{flags} 2,3,1", steps=5), theirs, atol=1e-4)
    strides = ours(monkeypatch, f"{flags} ddim10", "ancestral", steps=5)
    np.testing.assert_allclose(strides, their_loop(flags, KEPT["ddim5"]), atol=1e-4)
    theirs = their_loop(f"{flags} --use_ddim True", KEPT["2,3,1"])
    np.testing.assert_allclose(ours(monkeypatch, f"{flags} 2,3,1", "ddim"), theirs, atol=1e-4)


README = """--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --dropout 0.1 --image_size 64 \\
  --learn_sigma True --noise_schedule cosine --num_channels 192 --num_head_channels=64 --num_res_blocks 3
  --resblock_updown 1 --use_new_attention_order y --use_fp16 True --use_scale_shift_norm True --lr 1e-4
  --ema_rate 0.9999,0.99 --microbatch 4 --schedule_sampler loss-second-moment
  --use_kl True --timestep_respacing 250"""


def test_a_line_of_their_readme():
    command = openai_command.read(README)
    assert command.network == {
        "attention_resolutions": "32,16,8",
        "class_cond": True,
        "dropout": 0.1,
        "image_size": 64,
        "learn_sigma": True,
        "num_channels": 192,
        "num_head_channels": 64,
        "num_res_blocks": 3,
        "resblock_updown": True,
        "use_new_attention_order": True,
        "use_fp16": True,
        "use_scale_shift_norm": True,
    }
    assert command.chain["timestep_respacing"] == "250"
    assert not command.chain["rescale_timesteps"]
    assert len(openai_command.grid("250", 1000)(None)) == 251


WRONG = {
    "--diffusion_steps 4000": "must say --rescale_timesteps True or False where --diffusion_steps is 4000",
    "--diffusion_steps 0": "--diffusion_steps 0: 1 to 100000 are expected",
    "--diffusion_steps 100000000000": "1 to 100000 are expected",
    "--model_path a/b.pt --num_samples 100 --batch_size 4": (
        "drop --model_path a/b.pt (here it is --pretrained a/b.pt); --num_samples 100 (here it is --num 100); "
        "--batch_size 4 (here it is --batch 4)"
    ),
    "--classifier_scale 1.0 --classifier_depth 4": "drop --classifier_scale, --classifier_depth (OpenAI's",
    "--large_size 256 --small_size 64 --model_path x.pt": "upsamplers are not read here",
    "--image_sise 64": "--image_sise is not known",
    "--learn_sigma maybe": "--learn_sigma maybe is not True or False",
    "--image_size 64.5": "--image_size 64.5 is not a whole number",
    "python scripts/image_sample.py --image_size 64": "'python' is not in its place",
    "$MODEL_FLAGS --image_size 64": "'$MODEL_FLAGS' is not in its place",
    "--image_size --class_cond True": "'--class_cond' is not in its place",
    "--class_cond": "--class_cond has no value",
    "--channel_mult '1,2": "no closing quotation",
    "--noise_schedule cos": "--noise_schedule cos is not known; of use are linear, cosine",
    "--diffusion_steps 10 --rescale_timesteps True": "at least 20",
    "--timestep_respacing fast": "--timestep_respacing fast: give 250, 10,15,20 (of sections) or ddim25",
    "--timestep_respacing ddim10,20": "--timestep_respacing ddim10,20: give",
    "--timestep_respacing 2000": "at most 1000",
    "--timestep_respacing ddim300": "no stride makes 300 steps of 1000; take 250 or 334",
}


@pytest.mark.parametrize(("flags", "said"), WRONG.items())
def test_other_lines_are_refused(flags, said):
    with pytest.raises(InputError) as raised:
        published.openai("x.pt", flags)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
