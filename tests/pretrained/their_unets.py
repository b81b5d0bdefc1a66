"""The same network by diffusers and by us, of one config, with the same weights, inputs and loss.

Every weight is drawn at random first, since layers that start at zero or one would hide mistakes.
"""

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import traverse_util
from their_source import scale_embedding

from diffusion_jax.models.blocks.time_table import TimeTable
from diffusion_jax.models.unets.open import OpenUNet
from diffusion_jax.pretrained import entries, loading

BATCH = 2
# Keys that share a constant shift leave the softmax as it is: this gradient is zero but for rounding.
ZERO_GRADIENT = "key/bias"
# The test compiles more than it computes.
HASTY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def build(config):
    """diffusers' model and our `Network` of the same config."""
    arguments = {name: value for name, value in config.items() if not name.startswith("_")}
    return getattr(diffusers, config["_class_name"])(**arguments).eval(), loading.build(config)


def randomise(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim > 1:
                p.copy_(noise / p[0].numel() ** 0.5)
            else:
                p.copy_(0.2 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0))


def inputs(network):
    """x [B, 8, 16, C], float times, and what the network is told; NumPy."""
    rng = np.random.default_rng(0)
    x, _, cond = network.example
    image = {"x": (BATCH, 8, 16, x.shape[-1]), "tokens": (BATCH, 5), "hint": (BATCH, 16, 32)}
    known = {"label": np.array([4, 0]), "time_ids": np.array([[768, 1024, 0, 16, 512, 640], [96, 64, 8, 0, 600, 9]])}
    known["noise_level"] = np.array([250, 3])
    told = {}
    for name, array in (cond or {}).items():
        shape = image.get(name, (BATCH,)) + (array.shape[-1:] if array.ndim > 1 else ())
        told[name] = known[name].astype(array.dtype) if name in known else rng.normal(size=shape).astype(np.float32)
    time = np.array([3.5, 977.0], np.float32)
    if isinstance(network.model, OpenUNet) and isinstance(network.model.encode_time, TimeTable):
        time = time.astype(np.int32)
    return rng.normal(size=image["x"]).astype(np.float32), time, told or None


def state(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def to_torch(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def to_numpy(tensor):
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


SCALE = "guidance_scale"
NAMES = {"tokens": "encoder_hidden_states", "token_mask": "attention_mask", "hint": "controlnet_cond"}
NAMES |= dict.fromkeys(("label", "vector", "noise_level"), "class_labels")
ADDED = {"pooled": "text_embeds", "time_ids": "time_ids"}


def run_theirs(model, x, time, cond, gradients=True):
    """Outputs, a list of NHWC arrays, and the gradient of their mean squares, name -> array."""
    told = {
        NAMES[name]: to_torch(value) if value.ndim == 4 else torch.from_numpy(value)
        for name, value in (cond or {}).items()
        if name in NAMES
    }
    added = {ADDED[name]: torch.from_numpy(value) for name, value in (cond or {}).items() if name in ADDED}
    told |= {"added_cond_kwargs": added} if added else {}
    if SCALE in (cond or {}):
        told["timestep_cond"] = scale_embedding(torch.from_numpy(cond[SCALE] - 1), model.config.time_cond_proj_dim)
    out = model(to_torch(x), torch.from_numpy(time), **told, return_dict=False)
    out = [*out[0], out[1]] if len(out) == 2 else list(out)
    if not gradients:
        return [to_numpy(o) for o in out], {}
    sum((o**2).mean() for o in out).backward()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return [to_numpy(o) for o in out], {name: p.grad.numpy() for name, p in trained.items()}


def flat(params):
    return traverse_util.flatten_dict(jax.device_get(params), sep="/")


def run_ours(network, params, x, time, cond):
    def loss(params):
        out = network.model.apply({"params": params}, x, time, cond)
        out = out if type(out) is list else [out]
        return sum(jnp.mean(o**2) for o in out), out

    with jax.default_matmul_precision("highest"):
        gradients, out = jax.jit(jax.grad(loss, has_aux=True)).lower(params).compile(HASTY)(params)
    return jax.device_get(out), flat(gradients)


def distance(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def worst(ours, theirs):
    assert [o.shape for o in ours] == [o.shape for o in theirs]
    return max(distance(a, b) for a, b in zip(ours, theirs, strict=True))


def swapped(params):
    """Queries taken for keys: the kind of mistake that shapes do not show."""
    names = flat(params)
    moved = {"query": "key", "key": "query", "self_query": "self_key", "self_key": "self_query"}
    return traverse_util.unflatten_dict(
        {"/".join(moved.get(part, part) for part in name.split("/")): value for name, value in names.items()}, sep="/"
    )


def check_written(folder, model, network, config):
    """Bit for bit, through files: ours written, theirs read; and theirs written, ours read."""
    randomise(model)
    entries.write(network.read(state(model)), network.entries, folder, config)
    loaded = state(type(model).from_pretrained(folder))
    for name, array in state(model).items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)
