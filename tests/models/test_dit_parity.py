"""Our DiT against diffusers' DiTTransformer2DModel, and against a twin of the official network, same weights.

Every weight is drawn at random first, since gates that start at zero would hide all blocks. In float32 both differ
by rounding only: 1e-6 or so, asserted below 1e-4.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.blocks.conditioning import LabelEmbedding
from diffusion_jax.models.blocks.layers import cosinusoid
from diffusion_jax.models.transformers.dit import DiT, positions
from diffusion_jax.pretrained.entries import read, write
from diffusion_jax.pretrained.families import dit as tables

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")

TOLERANCE = 1e-4
CLASSES, PATCH, FEATURES, LAYERS, HEADS, IN, OUT = 4, 2, 24, 2, 2, 3, 5
BATCH, SIZE = 3, 8
# Keys that share a constant shift leave the softmax as it is: this gradient is zero but for rounding.
ZERO_GRADIENT = "key/bias"


def diffusers_dit(**options):
    small = {
        "num_attention_heads": HEADS,
        "attention_head_dim": FEATURES // HEADS,
        "in_channels": IN,
        "out_channels": OUT,
        "num_layers": LAYERS,
        "sample_size": SIZE,
        "patch_size": PATCH,
        "num_embeds_ada_norm": CLASSES,
        "norm_eps": 1e-6,  # as published; the default, of the second norm in each block, is 1e-5
    }
    return diffusers.DiTTransformer2DModel(**small | options).eval()


class OfficialBlock(torch.nn.Module):
    """As published: one matrix for query, key and value, split as (3, heads, features of a head)."""

    def __init__(self):
        super().__init__()
        linear = torch.nn.Linear
        self.adaLN_modulation = torch.nn.Sequential(torch.nn.SiLU(), linear(FEATURES, 6 * FEATURES))
        self.attn = torch.nn.ModuleDict({"qkv": linear(FEATURES, 3 * FEATURES), "proj": linear(FEATURES, FEATURES)})
        self.mlp = torch.nn.ModuleDict({"fc1": linear(FEATURES, 4 * FEATURES), "fc2": linear(4 * FEATURES, FEATURES)})

    def forward(self, x, c):
        shift_0, scale_0, gate_0, shift_1, scale_1, gate_1 = self.adaLN_modulation(c)[:, None].chunk(6, dim=-1)
        h = norm(x) * (1 + scale_0) + shift_0
        query, key, value = self.attn["qkv"](h).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        h = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        x = x + gate_0 * self.attn["proj"](h.transpose(1, 2).flatten(2))
        h = norm(x) * (1 + scale_1) + shift_1
        h = torch.nn.functional.gelu(self.mlp["fc1"](h), approximate="tanh")
        return x + gate_1 * self.mlp["fc2"](h)


def norm(x):
    return torch.nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6)


class Official(torch.nn.Module):
    """A twin of the official network, with the names of its files. Images need not be square."""

    def __init__(self):
        super().__init__()
        linear, modules = torch.nn.Linear, torch.nn.ModuleDict
        self.x_embedder = modules({"proj": torch.nn.Conv2d(IN, FEATURES, PATCH, PATCH)})
        layers = (linear(256, FEATURES), torch.nn.SiLU(), linear(FEATURES, FEATURES))
        self.t_embedder = modules({"mlp": torch.nn.Sequential(*layers)})
        self.y_embedder = modules({"embedding_table": torch.nn.Embedding(CLASSES + 1, FEATURES)})
        self.blocks = torch.nn.ModuleList(OfficialBlock() for _ in range(LAYERS))
        modulation = torch.nn.Sequential(torch.nn.SiLU(), linear(FEATURES, 2 * FEATURES))
        head = {"linear": linear(FEATURES, PATCH * PATCH * OUT), "adaLN_modulation": modulation}
        self.final_layer = modules(head)

    def forward(self, x, time, label):
        rows, columns = (n // PATCH for n in x.shape[2:])
        tokens = self.x_embedder["proj"](x).flatten(2).mT + self.positions(rows, columns)
        angles = time[:, None] * torch.exp(-math.log(1e4) * torch.arange(128) / 128)
        c = self.t_embedder["mlp"](torch.cat([angles.cos(), angles.sin()], dim=1))
        c = c + self.y_embedder["embedding_table"](label)
        for block in self.blocks:
            tokens = block(tokens, c)
        shift, scale = self.final_layer["adaLN_modulation"](c)[:, None].chunk(2, dim=-1)
        pixels = self.final_layer["linear"](norm(tokens) * (1 + scale) + shift)
        pixels = pixels.unflatten(-1, (PATCH, PATCH, OUT)).unflatten(1, (rows, columns))
        return torch.einsum("nhwpqc->nchpwq", pixels).reshape(len(x), OUT, *x.shape[2:])

    @staticmethod
    def positions(rows, columns):
        axis = diffusers.models.embeddings.get_1d_sincos_pos_embed_from_grid
        down, across = (axis(FEATURES // 2, torch.arange(n)).float() for n in (rows, columns))
        across, down = across[None].expand(rows, -1, -1), down[:, None].expand(-1, columns, -1)
        return torch.cat([across, down], dim=-1).flatten(0, 1)


def tied(model):
    """diffusers' network with one module of embeddings, not one a block: what its copies in files amount to."""
    first, *others = model.transformer_blocks
    for block in others:
        block.norm1.emb = first.norm1.emb
    return model


def randomise(model):
    """Matrices of deviation fan_in^-1/2, everything else of 0.2; so each part counts, and none too much."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * (p[0].numel() ** -0.5 if p.ndim > 1 else 0.2))
    return model


def make_official():
    model = randomise(Official())
    return model, lambda x, time, label: model(x, time, label)


def make_diffusers():
    model = tied(randomise(diffusers_dit()))
    return model, lambda x, time, label: model(x, time, label).sample


class Case:
    """Theirs: the call, the table, the size of images; ours: how it tells the time."""

    def __init__(self, make, table, height, width, encode_time):
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(BATCH, height, width, IN)).astype(np.float32)
        self.target = rng.normal(size=(BATCH, height, width, OUT)).astype(np.float32)
        self.time, self.label = np.array([3, 500, 977]), np.array([0, CLASSES, 2])
        self.model = DiT(PATCH, FEATURES, LAYERS, HEADS, OUT, {"label": LabelEmbedding(CLASSES + 1)}, encode_time)
        arguments = (self.x, self.time, {"label": self.label})
        self.template = jax.eval_shape(self.model.init, jax.random.key(0), *arguments)["params"]
        self.table, self.make = table, make

        def loss(params):
            out = self.model.apply({"params": params}, *arguments)
            return jnp.mean((out - self.target) ** 2), out

        self._compiled = jax.jit(jax.grad(loss, has_aux=True))

    def theirs(self):
        """Output, weights and gradients of the mean squared error, the latter two as our trees."""
        model, call = self.make()
        x, target = (torch.from_numpy(a.transpose(0, 3, 1, 2).copy()) for a in (self.x, self.target))
        out = call(x, torch.from_numpy(self.time), torch.from_numpy(self.label))
        ((out - target) ** 2).mean().backward()
        weights = {name: value.numpy() for name, value in model.state_dict().items()}
        gradients = {name: p.grad.numpy() for name, p in model.named_parameters()}
        once = [entry._replace(copies=()) for entry in self.table]  # a tied module's gradient stands once
        return (
            out.detach().numpy().transpose(0, 2, 3, 1),
            read(self.template, self.table, weights),
            read(self.template, once, gradients),
        )

    def ours(self, params):
        """Output and gradients."""
        with jax.default_matmul_precision("highest"):
            gradients, out = self._compiled(params)
        return np.asarray(out), gradients


@pytest.fixture(scope="module")
def cases():
    return {
        "diffusers": Case(make_diffusers, tables.diffusers(LAYERS), SIZE, SIZE, tables.diffusers_time),
        "official": Case(make_official, tables.official(LAYERS), SIZE, 2 * SIZE, cosinusoid),
    }


@pytest.fixture(scope="module")
def theirs(cases):
    return {name: case.theirs() for name, case in cases.items()}


def distance(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.mark.parametrize("name", ["diffusers", "official"])
def test_outputs_and_gradients_are_equal(cases, theirs, name):
    expected, params, expected_gradients = theirs[name]
    out, gradients = cases[name].ours(params)
    assert distance(out, expected) < TOLERANCE
    ours, others = (traverse_util.flatten_dict(tree, sep="/") for tree in (gradients, expected_gradients))
    for path in [path for path in ours if path.endswith(ZERO_GRADIENT)]:
        scale = np.linalg.norm(others[path.replace("key", "query")])
        assert np.linalg.norm(ours.pop(path)) < TOLERANCE * scale
        assert np.linalg.norm(others[path]) < TOLERANCE * scale
    errors = {path: distance(gradient, others[path]) for path, gradient in ours.items()}
    worst = max(errors, key=errors.get)
    print(f"{name}: output {distance(out, expected):.1e}; worst gradient {errors[worst]:.1e} ({worst})")
    assert errors[worst] < TOLERANCE, worst


def altered(params, layer, change):
    """`change` of every leaf of `layer`; "*/query" is the query of every block."""
    if layer.startswith("*/"):
        blocks = (name for name in params if name.startswith("block"))
        return params | {name: altered(params[name], layer[2:], change) for name in blocks}
    return params | {layer: jax.tree.map(change, params[layer])}


def swapped(params, a, b):
    """In every block, two layers exchanged."""
    blocks = (name for name in params if name.startswith("block"))
    return params | {name: params[name] | {a: params[name][b], b: params[name][a]} for name in blocks}


def parts(num, order):
    """Leaf -> leaf whose `num` parts along the last axis stand in another order."""
    return lambda leaf: jnp.concatenate([jnp.split(leaf, num, axis=-1)[i] for i in order], axis=-1)


WRONG = {
    "query and key swapped": lambda p: swapped(p, "query", "key"),
    "key and value swapped": lambda p: swapped(p, "key", "value"),
    "blocks swapped": lambda p: p | {"block_0": p["block_1"], "block_1": p["block_0"]},
    "scale before shift": lambda p: altered(p, "*/modulation", parts(6, (1, 0, 2, 4, 3, 5))),
    "gates first": lambda p: altered(p, "*/modulation", parts(6, (1, 2, 0, 4, 5, 3))),
    "perceptron before attention": lambda p: altered(p, "*/modulation", parts(6, (3, 4, 5, 0, 1, 2))),
    "scale before shift at the end": lambda p: altered(p, "output_modulation", parts(2, (1, 0))),
    "sines before cosines": lambda p: (
        p | {"time_embedding": altered(p["time_embedding"], "dense_0", lambda v: jnp.roll(v, 128 * (v.ndim - 1), 0))}
    ),
    "patches turned": lambda p: altered(p, "patches", lambda v: v.swapaxes(0, 1) if v.ndim > 1 else v),
    "channels before pixels": lambda p: altered(
        p, "output", lambda v: v.reshape(-1, OUT, PATCH * PATCH).swapaxes(1, 2).reshape(v.shape)
    ),
    "labels in another order": lambda p: altered(p, "embed_label", lambda v: v[::-1]),
    "heads interleaved": lambda p: altered(
        p, "*/query", lambda v: v.reshape(-1, HEADS, FEATURES // HEADS).swapaxes(1, 2).reshape(v.shape)
    ),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_conversion_is_seen(cases, theirs, wrong):
    """Control: one mistake of the kind that ports make exceeds the tolerance, tenfold."""
    expected, params, _ = theirs["diffusers"]
    out, _ = cases["diffusers"].ours(wrong(params))
    assert distance(out, expected) > 10 * TOLERANCE


def test_the_two_ways_to_tell_the_time_differ(cases, theirs):
    """Control: the published frequencies are not diffusers'."""
    case, (expected, params, _) = cases["diffusers"], theirs["diffusers"]
    out = case.model.clone(encode_time=cosinusoid).apply({"params": params}, case.x, case.time, {"label": case.label})
    assert distance(out, expected) > 10 * TOLERANCE


def test_copies_of_the_embeddings_must_be_equal(cases):
    """Control: diffusers' blocks may have embeddings of their own, which no published weights have."""
    weights = {name: value.numpy() for name, value in randomise(diffusers_dit()).state_dict().items()}
    with pytest.raises(InputError, match=r"transformer_blocks\.1\.norm1\.emb.* differs from transformer_blocks\.0"):
        read(cases["diffusers"].template, cases["diffusers"].table, weights)


def test_what_is_written_loads_in_diffusers(cases, theirs, tmp_path):
    case, (expected, params, _) = cases["diffusers"], theirs["diffusers"]
    write(params, case.table, tmp_path, dict(diffusers_dit().config))
    model = diffusers.DiTTransformer2DModel.from_pretrained(tmp_path, low_cpu_mem_usage=False).eval()
    x, time, label = (torch.from_numpy(a) for a in (case.x.transpose(0, 3, 1, 2).copy(), case.time, case.label))
    with torch.no_grad():
        out = model(x, time, label).sample
    assert distance(out.numpy().transpose(0, 2, 3, 1), expected) < 1e-6


def test_positions_of_official_files_are_looked_at():
    table = positions(4, 4, FEATURES)[None]
    assert tables.without_positions({"pos_embed": table, "other": 1}) == {"other": 1}
    for wrong in (table[:, ::-1], table[:, :8], positions(2, 8, FEATURES)[None]):
        with pytest.raises(InputError, match="pos_embed"):
            tables.without_positions({"pos_embed": wrong})


def test_full_size_has_the_published_names_and_shapes():
    """Of diffusers' DiT-XL/2; no number is made."""
    with torch.device("meta"):
        model = diffusers_dit(
            num_attention_heads=16,
            attention_head_dim=72,
            in_channels=4,
            out_channels=8,
            num_layers=28,
            sample_size=32,
            num_embeds_ada_norm=1000,
        )
    theirs = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    ours = DiT(embed={"label": LabelEmbedding(1001)})
    arguments = np.zeros((1, 32, 32, 4)), np.zeros(1), {"label": np.zeros(1, int)}
    leaves = jax.eval_shape(ours.init, jax.random.key(0), *arguments)["params"]
    leaves = traverse_util.flatten_dict(leaves, sep="/")
    table = tables.diffusers(28)
    shapes = {
        name: entry.layout.write(*(np.broadcast_to(np.int8(0), leaves[path].shape) for path in entry.ours)).shape
        for entry in table
        for name in (entry.theirs, *entry.copies)
    }
    assert shapes == theirs
    assert sorted(path for entry in table for path in entry.ours) == sorted(leaves)
    # The official table is of the same network: the same leaves of ours, each once.
    assert sorted(path for entry in tables.official(28) for path in entry.ours) == sorted(leaves)
    copies = sum(p.numel() for n, p in model.named_parameters() if ".emb." in n and "blocks.0." not in n)
    assert sum(p.numel() for p in model.parameters()) - copies == 674_834_720
