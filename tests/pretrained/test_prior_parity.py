"""unCLIP's prior and projections against diffusers', from folders that it wrote and to folders that it reads.

All weights are drawn at random first: statistics, positions and learned rows start at 0. In float32 both differ by
rounding only; controls, a mask or an order that is not theirs, are off by more than 1e-2.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from diffusion_jax import pretrained
from diffusion_jax.core import resizing, rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import guidance, samplers, stages, unclip
from diffusion_jax.models.blocks.layers import cosinusoid, sinusoid
from diffusion_jax.models.transformers import prior as prior_module
from diffusion_jax.pretrained import entries, loading
from diffusion_jax.pretrained.families import prior as families
from diffusion_jax.pretrained.schedulers import scheduler

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")

from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel  # noqa: E402
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (  # noqa: E402
    StableUnCLIPImageNormalizer,
)

BATCH, ROWS, FEATURES = 3, 16, 24
PRIOR = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 2, "embedding_dim": FEATURES}
PRIOR |= {"num_embeddings": ROWS}
PROJECTION = {"clip_embeddings_dim": FEATURES, "time_embed_dim": 128, "cross_attention_dim": 32}


def redrawn(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            scale = p[0].numel() ** -0.5 if name.endswith("weight") and p.ndim > 1 else 0.5
            p.copy_(scale * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    return model.eval()


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


MASK = np.arange(ROWS) < np.array([[5], [16], [1]])
TIME = np.array([999.0, 3.0, 417.0], np.float32)
X, TEXT, TOKENS = drawn(BATCH, FEATURES), drawn(BATCH, FEATURES, seed=1), drawn(BATCH, ROWS, FEATURES, seed=2)
TOLD = {"text_embedding": TEXT, "tokens": TOKENS, "token_mask": MASK}


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    """diffusers' and ours, read from the folder that it wrote."""
    theirs, folder = redrawn(diffusers.PriorTransformer(**PRIOR)), tmp_path_factory.mktemp("prior")
    theirs.save_pretrained(folder)
    return theirs, pretrained.load(folder)


def of_theirs(model, mask):
    tensors = [torch.from_numpy(array) for array in (X, TIME, TEXT, TOKENS)]
    mask = None if mask is None else torch.from_numpy(mask)
    return model(*tensors, attention_mask=mask).predicted_image_embedding


def of_ours(model, cond, params=None, module=None):
    module, params = module or model.network.model, params or model.params
    with jax.default_matmul_precision("highest"):
        return module.apply({"params": params}, X, TIME, cond)


@pytest.mark.parametrize("mask", [MASK, None], ids=["masked", "not even causal"])
def test_a_prior_is_theirs(prior, mask):
    theirs, ours = prior
    cond = {name: value for name, value in TOLD.items() if name != "token_mask" or mask is not None}
    wanted = of_theirs(theirs, mask).detach().numpy()
    np.testing.assert_allclose(of_ours(ours, cond), wanted, rtol=3e-5, atol=3e-5)
    for other in ({**TOLD, "token_mask": ~MASK}, {**TOLD, "token_mask": MASK | True}):  # controls
        assert np.abs(of_ours(ours, other) - wanted).max() > 1e-2


def test_the_time_is_told_cosines_first(prior, monkeypatch):
    """Control."""
    theirs, ours = prior
    monkeypatch.setattr(prior_module, "cosinusoid", sinusoid)
    assert np.abs(of_ours(ours, TOLD) - of_theirs(theirs, MASK).detach().numpy()).max() > 1e-2


def test_a_gradient_is_theirs(prior):
    theirs, ours = prior
    theirs.zero_grad()
    (of_theirs(theirs, MASK) ** 2).mean().backward()
    wanted = {name: p.grad for name, p in theirs.named_parameters() if not name.startswith("clip_")}
    grads = jax.jit(jax.grad(lambda params: jnp.mean(of_ours(ours, TOLD, params) ** 2)))(ours.params)
    leaves = traverse_util.flatten_dict(grads, sep="/")
    for entry in ours.network.entries:
        (found,) = (entry.layout.write(np.asarray(leaves[name])) for name in entry.ours)
        np.testing.assert_allclose(found, wanted.get(entry.theirs, np.zeros_like(found)), rtol=1e-3, atol=1e-5)


def test_statistics_are_read_and_all_is_written_again(prior, tmp_path):
    theirs, ours = prior
    chain = drawn(BATCH, FEATURES, seed=3)
    restored = chain * ours.params["clip_std"] + ours.params["clip_mean"]
    wanted = theirs.post_process_latents(torch.from_numpy(chain)).detach()
    np.testing.assert_allclose(restored, wanted, rtol=1e-6, atol=1e-6)
    ours.save(tmp_path)
    again = diffusers.PriorTransformer.from_pretrained(tmp_path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in theirs.state_dict().items())


@pytest.mark.parametrize("withheld", [False, True])
def test_projections_are_theirs(tmp_path, withheld):
    theirs = redrawn(UnCLIPTextProjModel(**PROJECTION))
    theirs.save_pretrained(tmp_path)
    ours = pretrained.load(tmp_path)
    told = dict(prompt_embeds=TEXT, text_encoder_hidden_states=TOKENS, image_embeddings=X)
    told = {name: torch.from_numpy(value) for name, value in told.items()}
    if withheld:  # their batch is twice as large, its first half without an image
        twice = {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in told.items()}
        told = twice | {"image_embeddings": told["image_embeddings"]}
    tokens, vector = theirs(**told, do_classifier_free_guidance=withheld)
    flag = np.ones(BATCH, bool) if withheld else None
    with jax.default_matmul_precision("highest"):
        found = ours.network.model.apply({"params": ours.params}, X, TEXT, TOKENS, MASK, flag)
    np.testing.assert_allclose(found["tokens"], tokens[:BATCH].detach(), rtol=3e-5, atol=3e-5)
    np.testing.assert_allclose(found["vector"], vector[:BATCH].detach(), rtol=3e-5, atol=3e-5)
    assert found["tokens"].shape == (BATCH, 4 + ROWS, 32)
    np.testing.assert_array_equal(found["token_mask"], np.pad(MASK, ((0, 0), (4, 0)), constant_values=True))


def test_a_normalizer_is_theirs():
    theirs = redrawn(StableUnCLIPImageNormalizer(FEATURES))
    weights = {name: tensor.numpy() for name, tensor in theirs.state_dict().items()}
    ours = families.normalizer({"embedding_dim": FEATURES}, weights)
    wanted = theirs.unscale(theirs.scale(torch.from_numpy(X)) + 1).detach()
    found = ((X - ours["mean"]) / ours["std"] + 1) * ours["std"] + ours["mean"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="of another shape"):
        families.normalizer({"embedding_dim": 8}, weights)


KARLO = {
    "prior": ({"_class_name": "PriorTransformer"}, diffusers.PriorTransformer, 1_022_030_080),
    "text_proj": (
        {"_class_name": "UnCLIPTextProjModel", "time_embed_dim": 1280, "cross_attention_dim": 1536},
        UnCLIPTextProjModel,
        7_878_400,
    ),
}


@pytest.mark.parametrize(("config", "kind", "parameters"), KARLO.values(), ids=KARLO)
def test_names_and_shapes_are_those_of_full_size(config, kind, parameters):
    with torch.device("meta"):
        theirs = kind(**{name: value for name, value in config.items() if name != "_class_name"}).state_dict()
    network = loading.build(config)
    found = entries.kinds(network.template(), network.entries)
    assert {name: size for name, (_, size) in found.items()} == {name: tuple(a.shape) for name, a in theirs.items()}
    assert sum(int(np.prod(size)) for _, size in found.values()) == parameters


# ---- What stands between the networks, against diffusers' pipelines.


class Exported:
    """Noise of our keys for `randn_tensor`, in the order in which pipelines draw it."""

    def __init__(self, keys, shape):
        self.keys, self.shape, self.number = keys, shape, 0

    def __call__(self, *_, **__):
        self.number += 1
        return torch.from_numpy(np.array(rng.normal_like(rng.each(self.keys, self.number), jnp.zeros(self.shape))))


def in_double(scheduler_):
    table = scheduler.betas(scheduler_.config | {"_class_name": type(scheduler_).__name__})
    scheduler_.betas, scheduler_.alphas = torch.from_numpy(table), torch.from_numpy(1 - table)
    scheduler_.alphas_cumprod = torch.cumprod(scheduler_.alphas, 0)
    return scheduler_


def test_a_whole_prior_is_theirs(prior, monkeypatch):
    """Guided by 4, with noise, bounded, restored: the first half of UnCLIPPipeline's call."""
    theirs, ours = prior
    config = {"_class_name": "UnCLIPScheduler", "prediction_type": "sample", "clip_sample_range": 2.0}
    null = {"text_embedding": TEXT[::-1], "tokens": TOKENS[::-1], "token_mask": MASK[::-1]}
    parts, keys = scheduler.sampling(config), rng.per_example(rng.root(0), jnp.arange(BATCH))
    draw = samplers.make_sample_fn(
        lambda params, *inputs: ours.network.model.apply({"params": params}, *inputs),
        parts.parameterization,
        parts.process,
        parts.sampler,
        parts.grid(5),
        BATCH,
        (FEATURES,),
        (*parts.own, parts.variance),
        guide=guidance.classifier_free(guidance.replacing(**null), 4.0),
    )
    with jax.default_matmul_precision("highest"):
        found = jax.jit(unclip.restoring(draw))(ours.params, keys, TOLD)

    steps = in_double(diffusers.UnCLIPScheduler.from_config(config))
    steps.set_timesteps(5)
    noise = Exported(keys, (BATCH, FEATURES))
    monkeypatch.setattr("diffusers.schedulers.scheduling_unclip.randn_tensor", noise)
    x = torch.from_numpy(np.array(rng.normal_like(rng.each(keys, 0), jnp.zeros((BATCH, FEATURES)))))
    tensors = [[torch.from_numpy(cond[name].copy()) for name in TOLD] for cond in (null, TOLD)]
    text, tokens, mask = map(torch.cat, zip(*tensors, strict=True))
    for t, after in zip(steps.timesteps, [*steps.timesteps[1:], None], strict=True):
        said = theirs(x.repeat(2, 1).float(), t, text, tokens, attention_mask=mask).predicted_image_embedding
        without, told = said.detach().chunk(2)
        x = steps.step(without + 4.0 * (told - without), t, x, prev_timestep=after).prev_sample
    wanted = theirs.post_process_latents(x).detach().numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


def test_stable_unclips_vector_is_theirs():
    normalizer = redrawn(StableUnCLIPImageNormalizer(FEATURES))
    config = {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2"}
    pipe = SimpleNamespace(
        image_normalizer=normalizer, image_noising_scheduler=in_double(diffusers.DDPMScheduler.from_config(config))
    )
    stage = unclip.renoised("vector", scheduler.table_of(config), cosinusoid, FEATURES)
    weights = {name: tensor.numpy() for name, tensor in normalizer.state_dict().items()}
    params = families.normalizer({"embedding_dim": FEATURES}, weights)
    keys = rng.per_example(rng.root(1), jnp.arange(BATCH))
    noise = torch.from_numpy(np.array(rng.normal_like(keys, jnp.asarray(X))))
    for level in (0, 250, 999):
        given = {"image_embedding": X, "noise_level": jnp.full(BATCH, float(level))}
        found = stage.run(params, keys, given)["vector"]
        noising = diffusers.StableUnCLIPPipeline.noise_image_embeddings
        wanted = noising(pipe, torch.from_numpy(X), level, noise).detach()
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_super_resolution_is_theirs(monkeypatch):
    """Karlo's: clipped, enlarged, seen after x; six steps of one network and the last of another."""
    weights, large, num = {"super_res_first": 0.6, "super_res_last": -0.8}, (12, 8), 7

    def said(xp, weight, x, time):  # of [B, C, H, W]
        return xp.tanh(weight * x[:, :3] + 0.5 * x[:, 3:] * (time / 1000 - 0.3))

    def apply(weight, x, time, cond):
        seen = jnp.concatenate([x, cond["beside"]], axis=-1).transpose(0, 3, 1, 2)
        return said(jnp, weight, seen, time[:, None, None, None]).transpose(0, 2, 3, 1)

    config = {"_class_name": "UnCLIPScheduler"}
    parts, keys = scheduler.sampling(config), rng.per_example(rng.root(2), jnp.arange(BATCH))
    steps = dict(zip(weights, (num - 1, 1), strict=True))
    turns = {
        name: samplers.Turn(apply, parts.parameterization, count, (*parts.own, parts.variance))
        for name, count in steps.items()
    }
    draw = samplers.in_turn(turns, parts.process, parts.sampler, parts.grid(num), BATCH, (*large, 3))
    small, beside = 2 * drawn(BATCH, 4, 4, 3), (*large, 3)

    both = [
        unclip.shown("enlarge", resizing.bicubic, "small", (4, 4, 3), large),
        stages.chain("super_res", draw, {"beside": beside}, "image", beside),
    ]
    found = stages.pipeline(both, {"small": (4, 4, 3)}, "image")({"super_res": weights}, keys, {"small": small})

    theirs = in_double(diffusers.UnCLIPScheduler.from_config(config))
    theirs.set_timesteps(num)
    own = stages.keys_of("super_res", keys)

    def noise(number):
        return np.array(rng.normal_like(rng.each(own, number), jnp.zeros((BATCH, *beside)))).transpose(0, 3, 1, 2)

    numbers = iter(range(1, num))
    monkeypatch.setattr(
        "diffusers.schedulers.scheduling_unclip.randn_tensor", lambda *_, **__: torch.tensor(noise(next(numbers)))
    )
    low = torch.from_numpy(small.transpose(0, 3, 1, 2).copy()).clamp(-1, 1)
    low = torch.nn.functional.interpolate(low, size=list(large), mode="bicubic", align_corners=False, antialias=True)
    x = torch.tensor(noise(0))
    for t, after in zip(theirs.timesteps, [*theirs.timesteps[1:], None], strict=True):
        weight = weights["super_res_last" if after is None else "super_res_first"]
        x = theirs.step(said(torch, weight, torch.cat([x, low], 1), t), t, x, prev_timestep=after).prev_sample
    np.testing.assert_allclose(found, x.numpy().transpose(0, 2, 3, 1), atol=1e-4)
