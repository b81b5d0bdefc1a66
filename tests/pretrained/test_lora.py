"""LoRAs that are made by hand: the sum by its definition, and each misfit refused by name."""

import json
import struct

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained import lora
from diffusion_jax.pretrained.families import lora_names
from diffusion_jax.pretrained.formats import safetensors_file

RNG = np.random.default_rng(0)
LEVELS = [f"{side}_blocks.{level}.resnets.{n}" for side, n in [("down", 0), ("up", 0), ("up", 1)] for level in (0, 1)]
ATTENTION = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
SHAPES = {
    "conv_in": (4, 3, 3, 3),
    **{f"{resnet}.conv1": (4, 4, 3, 3) for resnet in LEVELS},
    f"{ATTENTION}.to_q": (6, 4),
    f"{ATTENTION}.to_out.0": (4, 6),
    "down_blocks.1.attentions.0.proj_in": (4, 4, 1, 1),
    "up_blocks.0.attentions.1.proj_in": (4, 4),
    "up_blocks.0.upsamplers.0.conv": (4, 4, 3, 3),
    "up_blocks.1.upsamplers.0.conv": (4, 4, 3, 3),
}
BESIDE = {"conv_norm_out.weight": (4,), "conv_in.bias": (4,)}
Q = f"unet.{ATTENTION}.to_q"
FLAT = "lora_unet_" + ATTENTION.replace(".", "_")


def draw(*shape, dtype=np.float32) -> np.ndarray:
    return RNG.normal(size=shape).astype(dtype)


def write(path, arrays, notes=None):
    """A file of safetensors; `notes` are its metadata."""
    safetensors_file.write(path, {name: (a.dtype, a.shape) for name, a in arrays.items()}, iter(arrays.values()))
    if notes is not None:
        content = path.read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        header = json.loads(content[8 : 8 + length]) | {"__metadata__": notes}
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return path


@pytest.fixture
def weights(tmp_path):
    def weights(dtype=np.float32, shapes=SHAPES):
        arrays = {f"{layer}.weight": draw(*shape, dtype=dtype) for layer, shape in shapes.items()}
        arrays |= {name: draw(*shape, dtype=dtype) for name, shape in BESIDE.items()}
        return safetensors_file.load(write(tmp_path / "unet.safetensors", arrays))

    return weights


def low_rank(name_down, name_up, shape, rank=2, dtype=np.float32) -> dict[str, np.ndarray]:
    ones = (1,) * len(shape[2:])
    return {name_down: draw(rank, *shape[1:], dtype=dtype), name_up: draw(shape[0], rank, *ones, dtype=dtype)}


def kohya(name, layer, alpha=None, **more):
    arrays = low_rank(f"{name}.lora_down.weight", f"{name}.lora_up.weight", SHAPES[layer], **more)
    return arrays if alpha is None else arrays | {f"{name}.alpha": np.float32(alpha).reshape(())}


def product(arrays, name) -> np.ndarray:
    """B A in float64, summed over the rank entry by entry."""
    down, up = (arrays[f"{name}.lora_{part}.weight"].astype(np.float64) for part in ("down", "up"))
    return np.einsum("or,r...->o...", up[:, :, 0, 0] if up.ndim == 4 else up, down)


def test_the_sum_is_the_definition(weights, tmp_path):
    before = weights()
    one = kohya("lora_unet_conv_in", "conv_in", alpha=1.0) | kohya(f"{FLAT}_to_q", f"{ATTENTION}.to_q", alpha=3.0)
    one |= kohya("lora_unet_down_blocks_1_attentions_0_proj_in", "down_blocks.1.attentions.0.proj_in")
    other = kohya(f"{FLAT}_to_q", f"{ATTENTION}.to_q", alpha=4.0, rank=1)
    loras = [
        lora.Lora(write(tmp_path / "one.safetensors", one), 0.5),
        lora.Lora(write(tmp_path / "other.safetensors", other), -2.0),
    ]
    found = lora.merged(before, loras, "unet")
    wanted = {
        "conv_in.weight": 0.5 * 1 / 2 * product(one, "lora_unet_conv_in"),
        f"{ATTENTION}.to_q.weight": 0.5 * 3 / 2 * product(one, f"{FLAT}_to_q")
        - 2 * 4 * product(other, f"{FLAT}_to_q"),
        "down_blocks.1.attentions.0.proj_in.weight": 0.5
        * product(one, "lora_unet_down_blocks_1_attentions_0_proj_in"),
    }
    assert list(found) == list(before)
    for name, array in found.items():
        assert (array.shape, array.dtype) == (before[name].shape, before[name].dtype)
        assert (array is before[name]) == (name not in wanted)
        total = np.asarray(before[name]) + wanted.get(name, 0)
        np.testing.assert_allclose(np.asarray(array), total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float64])
def test_the_sum_is_rounded_once(weights, tmp_path, dtype):
    before = weights(dtype)
    arrays = kohya("lora_unet_conv_in", "conv_in", alpha=2.0, dtype=jnp.bfloat16)
    found = lora.merged(before, [lora.Lora(write(tmp_path / "a.safetensors", arrays))], "unet")["conv_in.weight"]
    exact = np.asarray(before["conv_in.weight"]).astype(np.float64) + product(arrays, "lora_unet_conv_in")
    half_a_step = jnp.finfo(dtype).eps / 2 * np.abs(exact)
    assert found.dtype == np.asarray(found).dtype == dtype
    slack = 0 if dtype == np.float64 else 1e-6
    assert (np.abs(np.asarray(found).astype(np.float64) - exact) <= half_a_step * 1.01 + slack).all()


def test_layers_by_the_names_of_the_original(weights, tmp_path):
    names = {
        "input_blocks_0_0": "conv_in",
        "input_blocks_1_0_in_layers_2": "down_blocks.0.resnets.0.conv1",
        "input_blocks_3_0_in_layers_2": "down_blocks.1.resnets.0.conv1",
        "input_blocks_3_1_transformer_blocks_0_attn1_to_out_0": f"{ATTENTION}.to_out.0",
        "output_blocks_1_0_in_layers_2": "up_blocks.0.resnets.1.conv1",
        "output_blocks_1_1_proj_in": "up_blocks.0.attentions.1.proj_in",
        "output_blocks_1_2_conv": "up_blocks.0.upsamplers.0.conv",
        "output_blocks_2_0_in_layers_2": "up_blocks.1.resnets.0.conv1",
        "output_blocks_3_1_conv": "up_blocks.1.upsamplers.0.conv",  # no attention stands before it
    }
    arrays = {}
    for name, layer in names.items():
        arrays |= kohya(f"lora_unet_{name}", layer)
    path = write(tmp_path / "sdxl.safetensors", arrays)
    found = lora.merged(weights(), [lora.Lora(path)], "unet")
    assert {name for name, array in found.items() if isinstance(array, lora.Merged)} == {
        f"{layer}.weight" for layer in names.values()
    }
    # Levels that are not alike are not counted by.
    uneven = {**SHAPES, "down_blocks.0.resnets.1.conv1": (4, 4, 3, 3)}
    with pytest.raises(InputError, match=r"'lora_unet_input_blocks_0_0\.lora_down\.weight' fits no layer"):
        lora.merged(weights(shapes=uneven), [lora.Lora(path)], "unet")


@pytest.mark.parametrize("start", ["text_model.", ""])
def test_text_encoders_with_and_without_their_first_name(tmp_path, start):
    layer = "encoder.layers.0.self_attn.q_proj"
    before = {f"{start}{layer}.weight": draw(4, 4), f"{start}embeddings.position_ids": np.arange(4)}
    for name in (
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_{}.weight",
        "lora_te1_encoder_layers_0_self_attn_q_proj.lora_{}.weight",
        "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.{}.weight",
        "text_encoder.encoder.layers.0.self_attn.q_proj.lora_linear_layer.{}.weight",
    ):
        arrays = low_rank(name.format("down"), name.format("up"), (4, 4))
        loras = [lora.Lora(write(tmp_path / "te.safetensors", arrays))]
        found = lora.merged(before, loras, "text_encoder")
        down, up = arrays.values()
        np.testing.assert_allclose(
            np.asarray(found[f"{start}{layer}.weight"]),
            before[f"{start}{layer}.weight"] + up @ down,
            rtol=1e-5,
            atol=1e-6,
        )
        assert lora.merged(before, loras, "text_encoder_2") == before
        lora.check(loras, ["unet", "text_encoder"])
        with pytest.raises(InputError, match="is of text_encoder; this pipeline has unet"):
            lora.check(loras, ["unet"])


PAIR = low_rank(f"{Q}.lora_A.weight", f"{Q}.lora_B.weight", SHAPES[f"{ATTENTION}.to_q"])
DOWN, UP = PAIR
OF_KOHYA = kohya(f"{FLAT}_to_q", f"{ATTENTION}.to_q", alpha=1.0)
MISFITS = {
    "another network": (
        low_rank("unet.blocks.7.lora_A.weight", "unet.blocks.7.lora_B.weight", (4, 4)),
        "'unet.blocks.7.lora_A.weight' fits no layer of this unet; it is a LoRA of another network",
    ),
    "wider": (
        low_rank(DOWN, UP, (8, 8)),
        r"does not fit .*attn1.to_q .*\(8, 2\) times \(2, 8\), for a weight \(6, 4\)",
    ),
    "of a norm": (
        low_rank("unet.conv_norm_out.lora_A.weight", "unet.conv_norm_out.lora_B.weight", (4, 4)),
        "conv_norm_out.lora_A.weight' fits no layer",
    ),
    "no rank": (low_rank(DOWN, UP, (6, 4), rank=0), "does not fit"),
    "unequal ranks": (PAIR | {UP: draw(6, 3)}, "does not fit"),
    "only half": ({DOWN: PAIR[DOWN]}, f"'{DOWN}' has no up beside it"),
    "only alpha": ({f"{Q}.alpha": draw()}, "has no down beside it"),
    "twice": (PAIR | OF_KOHYA, "comes twice"),
    "an alpha of two": (OF_KOHYA | {f"{FLAT}_to_q.alpha": draw(2)}, "alpha is one number"),
    "an alpha of NaN": (
        OF_KOHYA | {f"{FLAT}_to_q.alpha": np.float32(np.nan).reshape(())},
        "alpha is a finite number",
    ),
    "DoRA of kohya": (OF_KOHYA | {f"{FLAT}_to_q.dora_scale": draw(6, 1)}, "dora_scale' is one of DoRA"),
    "DoRA of peft": (PAIR | {f"{Q}.lora_magnitude_vector": draw(6)}, "is one of DoRA"),
    "a middle": (OF_KOHYA | {f"{FLAT}_to_q.lora_mid.weight": draw(2, 2, 1, 1)}, "is one of LoCon with a middle"),
    "LoHa": ({f"{FLAT}_to_q.hada_w1_a": draw(6, 2)}, "is one of LoHa"),
    "LoKr": ({f"{FLAT}_to_q.lokr_w1": draw(2, 2)}, "is one of LoKr"),
    "a bias": (PAIR | {f"{Q}.lora_B.bias": draw(6)}, "lora_B.bias' is none of a LoRA's arrays"),
    "a whole weight": ({"conv_in.weight": draw(4, 3, 3, 3)}, "'conv_in.weight' is none of a LoRA's arrays"),
    "integers": ({name: array.astype(np.int32) for name, array in PAIR.items()}, "a LoRA holds floats"),
    "nothing": ({}, "holds no arrays"),
}


@pytest.mark.parametrize(("arrays", "message"), MISFITS.values(), ids=MISFITS)
def test_misfits_are_refused_by_name(weights, tmp_path, arrays, message):
    path = write(tmp_path / "misfit.safetensors", arrays)
    with pytest.raises(InputError, match=message) as raised:
        lora.merged(weights(), [lora.Lora(path)], "unet")
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_scale_that_is_none_is_refused(weights, tmp_path):
    path = write(tmp_path / "a.safetensors", PAIR)
    with pytest.raises(InputError, match="times nan; the scale of a LoRA is a finite number"):
        lora.merged(weights(), [lora.Lora(path, np.nan)], "unet")


def test_pickles_are_refused_unopened(tmp_path):
    with pytest.raises(InputError, match=r"named \.safetensors"):
        lora.check([lora.Lora(tmp_path / "lora.bin")], ["unet"])


def config(**values):
    return {lora.CONFIG: json.dumps({f"unet.{name}": value for name, value in values.items()})}


@pytest.mark.parametrize(
    ("notes", "factor"),
    [
        ({"ss_network_alpha": "7"}, 1.0),  # of kohya's scripts, whose alphas are arrays
        (config(r=2, lora_alpha=3), 1.5),
        (config(r=2, lora_alpha=3, use_rslora=True), 3 / 2**0.5),
        (config(r=2, lora_alpha=3, alpha_pattern={"to_k": 9, "attn1.to_q": 5, "to_q": 7}), 2.5),
        (config(r=2, lora_alpha=3, alpha_pattern={"^to_q": 9}), 1.5),
        (config(r=2, lora_alpha=3, alpha_pattern={f"^{ATTENTION}.to_q": 1}), 0.5),
    ],
)
def test_alphas_of_pefts_config(weights, tmp_path, notes, factor):
    loras = [lora.Lora(write(tmp_path / "peft.safetensors", PAIR, notes))]
    before, name = weights(), f"{ATTENTION}.to_q.weight"
    total = np.asarray(before[name]) + factor * PAIR[UP] @ PAIR[DOWN]
    np.testing.assert_allclose(np.asarray(lora.merged(before, loras, "unet")[name]), total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({lora.CONFIG: "{"}, "is not JSON"),
        ({lora.CONFIG: "[1]"}, "is no object"),
        ({lora.CONFIG: '{"transformer.r": 4}'}, "'transformer.r' is of none of unet"),
        (config(use_dora=True), "use_dora = True is not supported"),
        (config(lora_bias=True), "lora_bias = True is not supported"),
        (config(lora_alpha="8"), "alpha = '8' of .* is no finite number"),
        (config(lora_alpha=10**400), "alpha = 1000.* is no finite number"),
        (config(alpha_pattern=[1]), r"alpha_pattern = \[1\]"),
        (config(alpha_pattern={"(a+)+$": 1}), "the pattern .* is none of letters and dots"),
    ],
)
def test_configs_that_ask_for_more_are_refused(weights, tmp_path, notes, message):
    path = write(tmp_path / "peft.safetensors", PAIR, notes)
    with pytest.raises(InputError, match=message):
        lora.merged(weights(), [lora.Lora(path)], "unet")


def test_a_spelling_of_two_layers_is_refused(tmp_path):
    before = {"a_b.c.weight": draw(2, 2), "a.b_c.weight": draw(2, 2)}
    assert lora_names.spellings(["a_b.c", "a.b_c"])["a_b_c"] == ["a_b.c", "a.b_c"]
    arrays = low_rank("lora_unet_a_b_c.lora_down.weight", "lora_unet_a_b_c.lora_up.weight", (2, 2))
    with pytest.raises(InputError, match=r"may be each of a_b\.c, a\.b_c"):
        lora.merged(before, [lora.Lora(write(tmp_path / "a.safetensors", arrays))], "unet")
