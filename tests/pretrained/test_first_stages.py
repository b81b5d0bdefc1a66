"""Published first stages without diffusers: scales, files without a config, and what is refused by name."""

import jax
import numpy as np
import pytest
from first_stages_tiny import PUBLISHED, SMALL, TINY, kl, vq
from PIL import Image

from diffusion_jax import sample
from diffusion_jax.autoencoding.latents import Scaling
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import write_json
from diffusion_jax.data import images
from diffusion_jax.pretrained import entries, first_stages, load
from diffusion_jax.pretrained.families import first_stage_files
from diffusion_jax.pretrained.families import first_stage_names as names
from diffusion_jax.pretrained.formats import safetensors_file

BARE = kl(32, 64, attended=[1], layers_per_block=1)


def save_file(arrays, path):
    """A file of safetensors."""
    kinds = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    safetensors_file.write(path, kinds, arrays.values())


def drawn(network, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), network.template())


def folder_of(path, config, seed=0):
    """A folder of random weights."""
    network = first_stages.described(config).network
    entries.write(drawn(network, seed), network.entries, path, config)
    return path


def arrays_of(config, naming):
    """Random weights by these names."""
    network = first_stages.described(config).network
    table = [*names.convolutional(network.model, naming), *names.codebook() * len(network.beside)]
    rng, kinds = np.random.default_rng(0), entries.kinds(network.template(), table)
    return {name: rng.normal(size=shape).astype(np.float32) for name, (_, shape) in kinds.items()}


# ---- Scales.


def test_latents_of_vq_are_scaled_only_where_the_config_says_so():
    """diffusers' class has the default 0.18215, by which its pipeline divides what was never multiplied."""
    config = {name: value for name, value in TINY["vq"].items() if name != "scaling_factor"}
    assert first_stages.described(config).scaling == Scaling(1.0, 0.0)
    assert first_stages.described(config | {"scaling_factor": 0.5}).scaling == Scaling(0.5, 0.0)
    assert first_stages.described({"_class_name": "AutoencoderKL"}).scaling == Scaling(0.18215, 0.0)
    assert first_stages.described({"_class_name": "AutoencoderTiny"}).scaling == Scaling(1.0, 0.0)


def test_scales_of_each_channel():
    """(z - mean) scale / std, as diffusers' pipelines invert it."""
    mean, std = [-1.0, 0.5, 2.0, 0.0], [2.0, 4.0, 0.5, 1.0]
    config = TINY["kl"] | {"latents_mean": mean, "latents_std": std, "scaling_factor": 0.13025}
    scaling = first_stages.described(config).scaling
    z = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)
    theirs = z * np.array(std) / 0.13025 + np.array(mean)
    np.testing.assert_allclose(scaling.unscaled(z), theirs, rtol=1e-5)
    np.testing.assert_allclose(scaling.scaled(scaling.unscaled(z)), z, atol=1e-5)
    written = first_stage_files.config_of(first_stages.described(config).network.model, scaling)
    again = first_stages.described(written).scaling
    np.testing.assert_allclose(again.scaled(z), scaling.scaled(z), rtol=1e-5)


# ---- Folders.


@pytest.mark.parametrize("at", ["", "vqvae"])
def test_a_folder_and_a_pipeline(tmp_path, at):
    config = TINY["vq"]
    folder_of(tmp_path / at, config)
    if at:
        write_json(tmp_path / "config.json", {"_class_name": "UNet2DModel"})
    stage = first_stages.opened(tmp_path)
    assert stage.config == config
    params = stage.read()
    assert params["codebook"].shape == (9, 5)
    stage.save(params, tmp_path / "again")
    again = first_stages.opened(tmp_path / "again")
    assert again.config["scaling_factor"] == 1.0
    jax.tree.map(np.testing.assert_array_equal, again.read(), params)
    assert load(tmp_path / "again").params.keys() == params.keys()


def test_another_scale_is_written(tmp_path):
    stage = first_stages.opened(folder_of(tmp_path, TINY["kl"]), scale=0.7)
    assert stage.scaling.scale == 0.7
    stage.save(stage.read(), tmp_path / "again")
    assert first_stages.opened(tmp_path / "again").scaling.scale == 0.7


def test_half_precision(tmp_path):
    folder_of(tmp_path, TINY["tiny"])
    stage = first_stages.opened(tmp_path, dtype="bfloat16")
    z = np.ones((1, 4, 4, 4), np.float32)
    half = jax.jit(stage.halves.decode)(stage.read(), z)
    single = jax.jit(first_stages.opened(tmp_path).halves.decode)(stage.read(), z)
    assert half.dtype == single.dtype == np.float32
    error = np.abs(half - single).max() / np.abs(single).max()
    assert 1e-5 < error < 0.05
    with pytest.raises(InputError, match="float32 or bfloat16, not float16: others overflow"):
        first_stages.opened(tmp_path, dtype="float16")


# ---- Files without a config.


@pytest.mark.parametrize("key", ["kl-f32", "Stable Diffusion 3", "vq-f4 without attention"])
@pytest.mark.parametrize("naming", [names.DIFFUSERS, names.BEFORE, names.LATENT_DIFFUSION])
def test_configs_are_derived_of_names_and_shapes(key, naming):
    config, _ = PUBLISHED[key]
    wanted = first_stages.described(config).network
    table = [*names.convolutional(wanted.model, naming), *names.codebook() * len(wanted.beside)]
    weights = {
        n: jax.ShapeDtypeStruct(s, np.float32) for n, (_, s) in entries.kinds(wanted.template(), table).items()
    }
    found = first_stages.described(first_stage_files.config_in(weights, "it"), weights).network
    assert found.model == wanted.model
    assert found.beside == wanted.beside
    assert found.entries == table


def test_a_whole_models_file(tmp_path):
    path = tmp_path / "model.safetensors"
    weights = {f"{first_stage_files.PREFIX}{n}": a for n, a in arrays_of(BARE, names.LATENT_DIFFUSION).items()}
    weights |= {"model.diffusion_model.out.weight": np.ones(2, np.float32), "betas": np.ones(3, np.float32)}
    save_file(weights, path)
    unsaid = first_stages.opened(path)
    assert unsaid.scaling is None
    with pytest.raises(InputError, match=r"scale of these latents is not known; give scale, 0.18215"):
        unsaid.save(unsaid.read(), tmp_path / "again")
    assert first_stages.opened(path, scale=0.3).scaling == Scaling(0.3, 0.0)
    save_file(weights | {"scale_factor": np.array(0.25, np.float32)}, path)
    stage = first_stages.opened(path)
    assert stage.scaling == Scaling(0.25, 0.0)
    np.testing.assert_array_equal(
        stage.read()["decoder"]["up_0_block_0"]["shortcut"]["kernel"],
        weights["first_stage_model.decoder.up.0.block.0.nin_shortcut.weight"][:, :, 0, 0].T,
    )
    save_file(weights | {"scale_factor": np.array(np.nan, np.float32)}, path)
    with pytest.raises(InputError, match="scale_factor = nan scales no latents"):
        first_stages.opened(path)
    save_file(weights | {"unheard.of": np.ones(2, np.float32)}, path)
    with pytest.raises(InputError, match=r"unknown: unheard\.of"):
        first_stages.opened(path, scale=1.0)


def test_a_file_beside_its_config(tmp_path):
    """What no shape says, such as groups, the config does."""
    folder_of(tmp_path, TINY["kl"])
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    assert first_stages.opened(file).config == TINY["kl"]
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match=r"does not say its groups of \[16, 24\] features; put its config.json"):
        first_stages.opened(file)
    save_file({"a": np.ones(2, np.float32)}, file)
    with pytest.raises(InputError, match=r"no first stage that is known: decoder.conv_in.weight is missing"):
        first_stages.opened(file)


# ---- What is refused, by name.


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TINY["kl"] | {"act_fn": "relu"}, "AutoencoderKL: act_fn = 'relu' is not supported"),
        (TINY["kl"] | {"use_quant_conv": False}, "use_post_quant_conv = True"),
        (TINY["kl"] | {"norm_num_groups": 7}, "norm_num_groups = 7 .* a divisor of all of block_out_channels"),
        (TINY["kl"] | {"scaling_factor": 0}, "scaling_factor = 0"),
        (TINY["kl"] | {"latents_mean": [0.0] * 3, "latents_std": [1.0] * 4}, "latents_mean .* a list of 4 numbers"),
        (TINY["kl"] | {"latents_mean": [0.0] * 4}, "latents_std = None"),
        (TINY["kl"] | {"latents_mean": [0] * 4, "latents_std": [1] * 4, "shift_factor": 1}, "shift_factor = 1"),
        (TINY["kl"] | {"up_block_types": ["UpDecoderBlock2D"] * 2}, "up_block_types .* attention on the levels"),
        (TINY["kl"] | {"down_block_types": ["DownBlock2D"] * 2}, "down_block_types .* one of DownEncoderBlock2D"),
        (TINY["kl"] | {"out_channels": 4}, "out_channels = 4"),
        (TINY["kl"] | {"new": 1}, "AutoencoderKL: new = 1"),
        (TINY["vq"] | {"norm_type": "spatial"}, "VQModel: norm_type = 'spatial' is not supported; only 'group'"),
        (TINY["vq"] | {"num_vq_embeddings": 10**12}, "num_vq_embeddings = 1000000000000"),
        (TINY["tiny"] | {"act_fn": "gelu"}, "AutoencoderTiny: act_fn = 'gelu'"),
        (TINY["tiny"] | {"decoder_block_out_channels": [8, 16]}, "all as wide"),
        (TINY["tiny"] | {"num_encoder_blocks": [1]}, "num_encoder_blocks = .* one for each of"),
        (TINY["tiny"] | {"block_out_channels": [16] * 2}, "block_out_channels = .* that of the decoder"),
        (TINY["tiny"] | {"upsampling_scaling_factor": 3}, "upsampling_scaling_factor = 3"),
        ({"_class_name": "UNet2DModel"}, "first stage of class 'UNet2DModel' is not known; of use are AutoencoderKL"),
        ({}, "first stage of class 'None' is not known"),
    ],
)
def test_a_value_that_is_not_implemented(config, message):
    with pytest.raises(InputError, match=message):
        first_stages.described(config)


def test_what_a_folder_of_diffusers_cannot_say():
    model = first_stages.described(TINY["kl"]).network.model
    with pytest.raises(InputError, match="as many channels as its decoder, not 7"):
        first_stage_files.config_of(model.clone(dim=7))
    model = first_stages.described(vq(8, codes=3) | SMALL).network.model
    with pytest.raises(InputError, match="are not shifted"):
        first_stage_files.config_of(model, Scaling(1.0, 0.5), codes=3)
    with pytest.raises(InputError, match="scaled by one number"):
        first_stage_files.config_of(model, Scaling(np.ones(3), 0.0), codes=3)


def test_files_that_are_no_first_stage(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"")
    with pytest.raises(InputError, match=r"a first stage is a folder, or a file named .safetensors"):
        first_stages.opened(tmp_path / "weights.npz")
    with pytest.raises(InputError, match=r"holds no config.json, nor do vae/, vqvae/, vq_model/ in it"):
        first_stages.opened(tmp_path)
    with pytest.raises(InputError, match="latents scaled by 0"):
        first_stages.opened(tmp_path, scale=0)
    folder_of(tmp_path, TINY["kl"] | {"latents_mean": [0.0] * 4, "latents_std": [1.0] * 4})
    with pytest.raises(InputError, match="latents_std; leave scale out"):
        first_stages.opened(tmp_path, scale=2.0)


def test_tiles_begin_with_the_codebook_too(tmp_path):
    """Of bounded weights: statistics of 9 sweeps are exact for 9 normalisations, and near for the other 4."""
    config = vq(8, 8, 8, codes=5) | SMALL | {"norm_num_groups": 2, "mid_block_add_attention": False}
    stage = first_stages.opened(folder_of(tmp_path / "vq", config))
    params = jax.tree.map(lambda x: x / max(1, np.sqrt(x[..., 0].size)), stage.read())
    z = np.random.default_rng(1).normal(size=(1, 12, 11, 3)).astype(np.float32)
    whole, tiles = (jax.jit(of.halves.decode)(params, z) for of in (stage, stage.on_tiles(40)))
    np.testing.assert_allclose(tiles, whole, atol=1e-4 * float(whole.std()))
    tiny = first_stages.opened(folder_of(tmp_path / "tiny", TINY["tiny"]))
    with pytest.raises(InputError, match="decodes whole pictures"):
        tiny.on_tiles(64)


@pytest.mark.exhaustive
def test_by_itself_it_shows_what_it_makes_of_pictures(tmp_path, capsys):
    folder = folder_of(tmp_path / "kl", kl(8, 16, sample_size=16) | SMALL | {"mid_block_add_attention": False})
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    command = ["--pretrained", str(folder), "--out", str(tmp_path / "out")]
    sample.main([*command, "--reconstruct", str(tmp_path / "a.png")])
    (pair,) = np.load(tmp_path / "out" / "samples.npz")["images"]
    np.testing.assert_array_equal(pair[0], pixels)
    stage = first_stages.opened(folder)
    params = stage.read()
    made = stage.halves.decode(params, stage.halves.encode(params, images.to_float(pixels)[None]).mean)
    np.testing.assert_allclose(pair[1], images.to_uint8(made)[0], atol=1)
    for options, said in (
        (["--reconstruct"], "name pictures"),
        (["--num", "1"], "draws nothing by itself"),
        (["--size", "15x15", "--num", "1"], "cannot be halved 1 times"),
        (["--tile", "32", "--num", "1"], "more than 2 levels"),
    ):
        with pytest.raises(InputError, match=said):
            sample.main([*command, *options])
