"""OpenAI's U-Nets against a twin in torch with the names of their files; and the published numbers of parameters."""

import jax
import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.unets.adm import AdditiveUNet, ADMUNet, ImprovedUNet
from diffusion_jax.pretrained import entries
from diffusion_jax.pretrained.families import openai_flags
from diffusion_jax.pretrained.formats import files, torch_file

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
GROUPS = 32
HASTY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks as small as these are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Residual(nn.Module):
    """GroupNorm, swish, change of resolution, 3x3; GroupNorm (modulated or not), swish, 3x3; plus the input."""

    def __init__(self, inside, outside, embedding, modulated, resample=None):
        super().__init__()
        self.modulated, self.resample = modulated, resample or (lambda x: x)
        self.in_layers = nn.ModuleDict(
            {"0": nn.GroupNorm(GROUPS, inside), "2": nn.Conv2d(inside, outside, 3, padding=1)}
        )
        self.emb_layers = nn.ModuleDict({"1": nn.Linear(embedding, outside * (1 + modulated))})
        self.out_layers = nn.ModuleDict(
            {"0": nn.GroupNorm(GROUPS, outside), "3": nn.Conv2d(outside, outside, 3, padding=1)}
        )
        self.skip_connection = nn.Identity() if inside == outside else nn.Conv2d(inside, outside, 1)

    def forward(self, x, embedding):
        h = self.in_layers["2"](self.resample(functional.silu(self.in_layers["0"](x))))
        told = self.emb_layers["1"](functional.silu(embedding))[:, :, None, None]
        if self.modulated:
            scale, shift = told.chunk(2, dim=1)
            h = self.out_layers["0"](h) * (1 + scale) + shift
        else:
            h = self.out_layers["0"](h + told)
        return self.skip_connection(self.resample(x)) + self.out_layers["3"](functional.silu(h))


class Attention(nn.Module):
    """Its merged layer holds (heads, qkv, features) in the older order, (qkv, heads, features) in the newer."""

    def __init__(self, width, heads, newer):
        super().__init__()
        self.heads, self.newer = heads, newer
        self.norm = nn.GroupNorm(GROUPS, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x, embedding):
        batch, width = x.shape[:2]
        merged = self.qkv(self.norm(x).flatten(2))
        if self.newer:
            parts = merged.reshape(batch, 3, self.heads, width // self.heads, -1).unbind(1)
        else:
            parts = merged.reshape(batch, self.heads, 3, width // self.heads, -1).unbind(2)
        query, key, value = (part.transpose(2, 3) for part in parts)
        h = functional.scaled_dot_product_attention(query, key, value)
        return x + self.proj_out(h.transpose(2, 3).reshape(batch, width, -1)).reshape(x.shape)


class Down(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x, embedding):
        return self.op(x)


class Up(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x, embedding):
        return self.conv(functional.interpolate(x, scale_factor=2))


class Input(nn.Conv2d):
    def forward(self, x, embedding):
        return super().forward(x)


def in_turn(layers, x, embedding):
    for layer in layers:
        x = layer(x, embedding)
    return x


class Twin(nn.Module):
    """The architecture of the papers (Dhariwal & Nichol 2021, section 3), by the numbers of the files.

    `told` is the width that the time is told in, where it is not that of the full resolution.
    """

    def __init__(
        self,
        widths,
        blocks,
        attention,
        heads,
        out,
        classes=None,
        modulated=True,
        residual=False,
        newer=False,
        told=None,
    ):
        super().__init__()
        first = widths[0]
        told = told or first
        embedding = 4 * told

        def block(inside, outside, resample=None):
            return Residual(inside, outside, embedding, modulated, resample)

        def attend(level, width):
            return [Attention(width, heads(width), newer)] if level in attention else []

        self.features = told
        self.time_embed = nn.ModuleDict({"0": nn.Linear(told, embedding), "2": nn.Linear(embedding, embedding)})
        if classes:
            self.label_emb = nn.Embedding(classes, embedding)
        inputs, h, skips = [[Input(3, first, 3, padding=1)]], first, [first]
        for level, width in enumerate(widths):
            for _ in range(blocks):
                inputs.append([block(h, width), *attend(level, width)])
                h = width
                skips.append(h)
            if level < len(widths) - 1:
                inputs.append([block(h, h, lambda x: functional.avg_pool2d(x, 2)) if residual else Down(h)])
                skips.append(h)
        middle = [block(h, h), Attention(h, heads(h), newer), block(h, h)]
        outputs = []
        for level, width in reversed(list(enumerate(widths))):
            for i in range(blocks + 1):
                layers = [block(h + skips.pop(), width), *attend(level, width)]
                h = width
                if level and i == blocks:
                    layers.append(
                        block(h, h, lambda x: functional.interpolate(x, scale_factor=2)) if residual else Up(h)
                    )
                outputs.append(layers)
        self.input_blocks = nn.ModuleList(map(nn.ModuleList, inputs))
        self.middle_block = nn.ModuleList(middle)
        self.output_blocks = nn.ModuleList(map(nn.ModuleList, outputs))
        self.out = nn.ModuleDict({"0": nn.GroupNorm(GROUPS, first), "2": nn.Conv2d(first, out, 3, padding=1)})

    def forward(self, x, time, label=None):
        half = self.features // 2
        angles = time[:, None] * torch.exp(-np.log(10000) * torch.arange(half) / half)
        told = self.time_embed["0"](torch.cat([angles.cos(), angles.sin()], dim=1))
        told = self.time_embed["2"](functional.silu(told))
        if label is not None:
            told = told + self.label_emb(label)
        skips, h = [], x
        for layers in self.input_blocks:
            h = in_turn(layers, h, told)
            skips.append(h)
        h = in_turn(self.middle_block, h, told)
        for layers in self.output_blocks:
            h = in_turn(layers, torch.cat([h, skips.pop()], dim=1), told)
        return self.out["2"](functional.silu(self.out["0"](h)))


IMPROVED_CIFAR10 = {"image_size": 32, "num_res_blocks": 3, "learn_sigma": True, "dropout": 0.3}
ADM_64 = {
    "image_size": 64,
    "class_cond": True,
    "learn_sigma": True,
    "num_channels": 192,
    "num_head_channels": 64,
    "num_res_blocks": 3,
    "attention_resolutions": "32,16,8",
    "resblock_updown": True,
    "use_new_attention_order": True,
    "use_fp16": True,
    "dropout": 0.1,
}
ADM_512 = {
    "image_size": 512,
    "class_cond": True,
    "learn_sigma": True,
    "num_channels": 256,
    "num_head_channels": 64,
    "num_res_blocks": 2,
    "attention_resolutions": "32,16,8",
    "resblock_updown": True,
}
FULL = {
    "improved-diffusion CIFAR-10": (
        IMPROVED_CIFAR10,
        ImprovedUNet,
        {"widths": (128, 256, 256, 256), "blocks": 3, "attention": (1, 2), "heads": lambda width: 4, "out": 6},
        52_546_438,
    ),
    "guided-diffusion 64x64": (
        ADM_64,
        ADMUNet,
        {"widths": (192, 384, 576, 768), "blocks": 3, "attention": (1, 2, 3), "heads": lambda width: width // 64}
        | {"out": 6, "classes": 1000, "residual": True, "newer": True},
        295_904_454,
    ),
    # 559 million in the paper's table of networks.
    "guided-diffusion 512x512": (
        ADM_512,
        ADMUNet,
        {"widths": (128, 256, 256, 512, 512, 1024, 1024), "blocks": 2, "attention": (4, 5, 6), "told": 256}
        | {"heads": lambda width: width // 64, "out": 6, "classes": 1000, "residual": True},
        558_997_638,
    ),
    # Its parameters are also counted by diffusers, in test_diffusers_parity.
    "consistency-models LSUN 256x256": (
        {name: value for name, value in ADM_512.items() if name not in ("learn_sigma", "class_cond")}
        | {"image_size": 256, "use_scale_shift_norm": False},
        AdditiveUNet,
        {"widths": (256, 256, 512, 512, 1024, 1024), "blocks": 2, "attention": (3, 4, 5), "modulated": False}
        | {"heads": lambda width: width // 64, "out": 3, "residual": True},
        526_304_771,
    ),
}


@pytest.mark.parametrize(("flags", "module", "twin", "parameters"), FULL.values(), ids=FULL)
def test_full_size_names_and_shapes(flags, module, twin, parameters):
    with torch.device("meta"):
        model = Twin(**twin)
    network = openai_flags.unet(flags)
    assert type(network.model) is module
    found = entries.kinds(network.template(), network.entries)
    assert {name: shape for name, (_, shape) in found.items()} == {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
    }
    assert sum(p.numel() for p in model.parameters()) == parameters


SMALL = {"image_size": 16, "num_channels": 32, "channel_mult": "1,2", "num_res_blocks": 1}
WIDE = {"widths": (32, 64), "blocks": 1, "out": 3}
TINY = {
    "improved": (
        SMALL | {"attention_resolutions": "8", "num_heads": 4},
        WIDE | {"attention": (1,), "heads": lambda width: 4},
    ),
    "guided": (
        SMALL
        | {"attention_resolutions": "16,8", "num_head_channels": 16, "class_cond": True, "resblock_updown": True}
        | {"use_new_attention_order": True, "learn_sigma": True},
        WIDE
        | {"attention": (0, 1), "heads": lambda width: width // 16, "classes": 1000, "out": 6}
        | {"residual": True, "newer": True},
    ),
    "not modulated": (
        SMALL | {"attention_resolutions": "", "num_heads": 2, "use_scale_shift_norm": False},
        WIDE | {"attention": (), "heads": lambda width: 2, "modulated": False},
    ),
    "not modulated, residual, of another width than its time": (
        SMALL
        | {"num_channels": 16, "channel_mult": "4,6", "attention_resolutions": "8", "num_head_channels": 16}
        | {"use_scale_shift_norm": False, "resblock_updown": True},
        WIDE
        | {"widths": (64, 96), "attention": (1,), "heads": lambda width: width // 16}
        | {"modulated": False, "residual": True, "told": 16},
    ),
}


def randomise(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(noise / p[0].numel() ** 0.5 if p.ndim > 1 else 0.2 * noise + 0.5)


@pytest.mark.parametrize(("flags", "twin"), TINY.values(), ids=TINY)
def test_outputs_equal_the_twin(tmp_path, flags, twin):
    """Through a file of torch.save, there and back."""
    model, network = Twin(**twin), openai_flags.unet(flags)
    randomise(model)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    params = network.read(torch_file.load(tmp_path / "model.pt"))

    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 8, 16, 3)).astype(np.float32)
    time, label = np.array([3.0, 977.0], np.float32), np.array([7, 999])
    told = (torch.from_numpy(label),) if twin.get("classes") else ()
    with torch.no_grad():
        theirs = model(torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(time), *told)
    theirs = theirs.numpy().transpose(0, 2, 3, 1)
    arguments = (x, time, {"label": label} if told else None)
    with jax.default_matmul_precision("highest"):
        apply = jax.jit(network.model.apply).lower({"params": params}, *arguments).compile(HASTY)
        ours = apply({"params": params}, *arguments)
        # Control: the other order of heads, which has the same shapes.
        other = openai_flags.unet(flags | {"use_new_attention_order": not twin.get("newer")})
        wrong = apply({"params": other.read(torch_file.load(tmp_path / "model.pt"))}, *arguments)
    assert ours.shape == theirs.shape
    errors = [np.linalg.norm(out - theirs) / np.linalg.norm(theirs) for out in (ours, wrong)]
    print(errors)
    assert errors[0] < TOLERANCE
    assert errors[1] > 10 * TOLERANCE

    entries.write(params, network.entries, tmp_path, flags)
    back = files.component(tmp_path).weights
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(np.asarray(back[name]), tensor.numpy(), err_msg=name)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"image_size": 48}, "channel_mult = '' is not supported; 1 to 12 multiples of num_channels are expected"),
        ({"channel_mult": "0.5,1"}, "channel_mult = '0.5,1' is not supported; positive integers"),
        ({"image_size": 512, "num_channels": 1}, "channel_mult = '' is not supported; 1 to 12 multiples"),
        ({"num_heads_upsample": 2}, "num_heads_upsample = 2 is not supported"),
        ({"image_size": "64"}, "image_size = '64' is not supported; an integer"),
        ({"conv_resample": True}, "conv_resample = True is not supported; it is not known here"),
    ],
)
def test_other_networks_are_refused(flags, message):
    with pytest.raises(InputError) as raised:
        openai_flags.unet(flags)
    assert message in str(raised.value)
