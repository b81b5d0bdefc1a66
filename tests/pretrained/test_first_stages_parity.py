"""First stages against diffusers': every weight drawn at random, outputs, gradients, indices, names and files.

In float32, of products of the highest precision, both differ by rounding: about 1e-6, asserted below 3e-5. What is
known to go wrong without a trace in shapes (an epsilon, a padding, a cut that is not reached) must be above that.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from first_stages_tiny import PUBLISHED, TINY, kl
from flax import traverse_util

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import write_json
from diffusion_jax.models.blocks import layers
from diffusion_jax.pretrained import entries, first_stages
from diffusion_jax.pretrained.families import first_stage_names as names

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")

pytestmark = pytest.mark.slow

TOLERANCE = 3e-5
SIDE = 16
HASTY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
ZERO_GRADIENT = "key/bias"  # keys that share a constant shift leave the softmax as it is


def theirs_of(config):
    arguments = {name: value for name, value in config.items() if not name.startswith("_")}
    return getattr(diffusers, config["_class_name"])(**arguments).eval()


def randomised(config):
    """diffusers' model with every weight redrawn: log variances are driven beyond where they are cut."""
    model, generator = theirs_of(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            norm = "norm" in name and name.endswith("weight")
            p.copy_(noise / p[0].numel() ** 0.5 if p.ndim > 1 else 0.2 * noise + (1.0 if norm else 0.0))
        if config["_class_name"] == "AutoencoderKL":
            last = model.quant_conv or model.encoder.conv_out
            last.weight[len(last.weight) // 2 :] *= 40
    return model


def state(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def saved(model, folder, config):
    """As published: a config.json without the values that are defaults, which diffusers writes too."""
    model.save_pretrained(folder)
    write_json(folder / "config.json", config)


def to_torch(images):
    return torch.from_numpy(np.asarray(images).transpose(0, 3, 1, 2).copy())


def to_numpy(tensor):
    return tensor.detach().numpy().transpose(0, 2, 3, 1)


def problem(config):
    """A picture [B, 16, 16, C] in [-1, 1], and weights by which what is decoded is summed."""
    rng = np.random.default_rng(0)
    shape = (2, SIDE, SIDE, config.get("in_channels", 3))
    return rng.uniform(-1, 1, shape).astype(np.float32), rng.normal(size=shape).astype(np.float32)


def run_theirs(model, x, weights):
    """(mean, standard deviation), z decoded, and the gradient of its weighed sum; z is the mean."""
    match model.encode(to_torch(x)):
        case diffusers.models.autoencoders.vq_model.VQEncoderOutput(latents=z):
            said, decoded = [z, torch.zeros_like(z)], model.decode(z, force_not_quantize=True).sample
        case diffusers.models.autoencoders.autoencoder_tiny.AutoencoderTinyOutput(latents=z):
            said, decoded = [z, torch.zeros_like(z)], model.decode(z).sample
        case encoded:
            law = encoded.latent_dist
            said, decoded = [law.mean, law.std], model.decode(law.mean).sample
    (decoded * to_torch(weights)).mean().backward()
    gradients = {name: np.zeros(p.shape, np.float32) for name, p in model.named_parameters()}
    gradients |= {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    return [to_numpy(s) for s in said], to_numpy(decoded), gradients


def run_ours(stage, params, x, weights):
    def loss(params):
        q = stage.halves.encode(params, x)
        # Codes that are not quantised: what comes of an index does not depend on the encoder.
        decoded = stage.network.model.apply({"params": params}, q.mean, method="decode")
        return jnp.mean(decoded * weights), ([q.mean, jnp.broadcast_to(q.std, q.mean.shape)], decoded)

    with jax.default_matmul_precision("highest"):
        gradients, (said, decoded) = jax.jit(jax.grad(loss, has_aux=True)).lower(params).compile(HASTY)(params)
    return said, decoded, traverse_util.flatten_dict(jax.device_get(gradients), sep="/")


def distance(ours, theirs):
    return float(np.linalg.norm(np.asarray(ours) - theirs) / max(np.linalg.norm(theirs), 1e-30))


@pytest.mark.parametrize(("config", "parameters"), PUBLISHED.values(), ids=PUBLISHED)
def test_names_and_shapes_are_the_published_ones(config, parameters):
    with torch.device("meta"):
        model = theirs_of(config)
    network = first_stages.described(config).network
    found = entries.kinds(network.template(), network.entries)
    assert {name: shape for name, (_, shape) in found.items()} == {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
    }
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("key", TINY)
def test_numbers_equal_diffusers(key, tmp_path):
    model = randomised(TINY[key])
    saved(model, tmp_path, TINY[key])
    stage = first_stages.opened(tmp_path)
    params, (x, weights) = stage.read(), problem(TINY[key])
    (mean, std), decoded, gradients = run_theirs(model, x, weights)
    (our_mean, our_std), our_decoded, ours = run_ours(stage, params, x, weights)
    errors = [distance(our_mean, mean), distance(our_decoded, decoded)]
    assert max(errors) < TOLERANCE, errors
    if std.any():
        assert std.min() < 1e-6  # both ends of the cut are reached
        assert std.max() == np.float32(np.exp(10))
        errors.append(np.abs(np.log(our_std) - np.log(std)).max())  # of numbers of up to 20
        assert errors[-1] < 10 * TOLERANCE
    else:
        assert not np.asarray(our_std).any()
    gradients = traverse_util.flatten_dict(jax.device_get(stage.network.read(gradients)), sep="/")
    largest = max(np.linalg.norm(g) for g in gradients.values())
    errors.append(max(np.linalg.norm(ours[name] - gradients[name]) for name in gradients) / largest)
    print(f"{key}: mean, decoded, log std, gradients {errors}")
    assert errors[-1] < TOLERANCE

    # And back: what is written is what diffusers reads.
    stage.save(params, tmp_path / "ours")
    again = type(model).from_pretrained(tmp_path / "ours")
    jax.tree.map(np.testing.assert_array_equal, state(again), state(model))
    assert again.config.scaling_factor == (1.0 if key == "vq" else model.config.scaling_factor)
    assert getattr(again.config, "shift_factor", 0) == getattr(model.config, "shift_factor", 0)


def test_controls(monkeypatch, tmp_path):
    """What shapes do not show: another epsilon, of a picture of little contrast; strides that pad all sides."""
    model = randomised(TINY["kl"])
    model.save_pretrained(tmp_path)
    x = 0.01 * problem(TINY["kl"])[0]
    theirs = to_numpy(model.encode(to_torch(x)).latent_dist.mean)
    stage = first_stages.opened(tmp_path)
    params = stage.read()

    def error():
        with jax.default_matmul_precision("highest"):
            found = jax.jit(lambda: stage.halves.encode(params, x).mean).lower().compile(HASTY)()
        return distance(found, theirs)

    for where, value, least in (
        ((layers.GroupNorm, "epsilon"), 1e-5, 1),
        ((layers.Downsample, "padding"), layers.SAME, 1000),
    ):
        with monkeypatch.context() as patch:
            _always(patch, *where, value)
            assert error() > least * TOLERANCE
    assert error() < TOLERANCE


def _always(patch, layer, field, value):
    """Every `layer` that is made has this value."""
    setup = layer.__call__

    def call(self, *inputs):
        object.__setattr__(self, field, value)
        return setup(self, *inputs)

    patch.setattr(layer, "__call__", call)


def test_quantised_as_theirs(tmp_path):
    """Where the nearest code is clear, the same is taken; and all is decoded alike."""
    model = randomised(TINY["vq"])
    model.save_pretrained(tmp_path)
    stage = first_stages.opened(tmp_path)
    z = np.random.default_rng(1).normal(size=(2, 8, 8, 5)).astype(np.float32)
    codes = state(model)["quantize.embedding.weight"].astype(np.float64)
    away = np.sort(((z[..., None, :] - codes) ** 2).sum(-1), axis=-1)
    assert (away[..., 1] - away[..., 0]).min() > 1e-5
    with torch.no_grad():
        theirs = to_numpy(model.decode(to_torch(z)).sample)
    with jax.default_matmul_precision("highest"):
        ours = jax.jit(stage.halves.decode).lower(stage.read(), z).compile(HASTY)(stage.read(), z)
    assert distance(ours, theirs) < TOLERANCE


def test_older_names_of_attention(tmp_path):
    model = randomised(TINY["kl"])
    arrays = {}
    for name, tensor in model.state_dict().items():
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            name = name.replace(f".{new}.", f".{old}.")
        arrays[name] = tensor
    model.save_pretrained(tmp_path)
    new = first_stages.opened(tmp_path).read()
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(arrays, tmp_path / "diffusion_pytorch_model.bin")
    stage = first_stages.opened(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, stage.read(), new)
    stage.save(new, tmp_path / "new")
    jax.tree.map(np.testing.assert_array_equal, state(type(model).from_pretrained(tmp_path / "new")), state(model))


def test_latent_diffusions_names(tmp_path):
    """diffusers converts our arrays of those names to its own, for AutoencoderKL without attention on levels."""
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    config = kl(32, 64, layers_per_block=1)
    stage = first_stages.described(config)
    model = randomised(config)
    params = stage.network.read(state(model))
    table = names.convolutional(stage.network.model, names.LATENT_DIFFUSION)
    flat = traverse_util.flatten_dict(jax.device_get(params), sep="/")
    theirs = {entry.theirs: np.array(entry.layout.write(*(flat[ours] for ours in entry.ours))) for entry in table}
    whole = {f"first_stage_model.{name}": torch.from_numpy(array) for name, array in theirs.items()}
    converted = convert_ldm_vae_checkpoint(whole, model.config)
    assert converted.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(converted[name].reshape(tensor.shape), tensor, err_msg=name)

    others = {"model.diffusion_model.out": torch.ones(3), "betas": torch.ones(3), "cond_stage_model.a": torch.ones(2)}
    # Lightning names the classes of what watched its training; naming makes nothing.
    watched = {"callbacks": {pathlib.PurePath: {"best": 1.0}}, "epoch": 3}
    torch.save({"state_dict": whole | others, **watched}, tmp_path / "model.ckpt")
    opened = first_stages.opened(tmp_path / "model.ckpt", scale=0.2)
    jax.tree.map(np.testing.assert_array_equal, opened.read(), params)
    opened.save(params, tmp_path / "folder")
    again = type(model).from_pretrained(tmp_path / "folder")
    jax.tree.map(np.testing.assert_array_equal, state(again), state(model))
    assert again.config.scaling_factor == 0.2

    torch.save({"state_dict": whole, "made": pathlib.PurePath("a")}, tmp_path / "model.ckpt")
    with pytest.raises(InputError, match="holds code: 'pathlib"):
        first_stages.opened(tmp_path / "model.ckpt", scale=0.2)
