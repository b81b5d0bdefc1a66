"""Files that torch itself writes, in both of its formats, against the tensors that were saved."""

import collections

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")

from diffusion_jax.core.errors import InputError  # noqa: E402
from diffusion_jax.pretrained.formats import torch_file  # noqa: E402

FORMATS = [
    {},
    {"_use_new_zipfile_serialization": False},
    {"pickle_protocol": 4},
    {"pickle_protocol": 5, "_use_new_zipfile_serialization": False},
]


def content():
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(4, 6, 5, generator=generator)
    return {
        "base": base,
        "view": base[1, 2:, ::2],
        "transposed": base.permute(2, 0, 1),
        "double": base.double(),
        "half": base.half(),
        "bfloat16": base.bfloat16(),
        "long": torch.arange(7),
        "int": torch.arange(7, dtype=torch.int32),
        "short": torch.arange(7, dtype=torch.int16),
        "char": torch.arange(-3, 4, dtype=torch.int8),
        "byte": torch.arange(7, dtype=torch.uint8),
        "bool": torch.arange(7) % 2 == 0,
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(base[0]),
    }


def same(stored, tensor):
    array = np.asarray(stored)
    assert (stored.shape, stored.dtype) == (array.shape, array.dtype) == (tuple(tensor.shape), array.dtype)
    assert array.dtype.name == str(tensor.dtype).removeprefix("torch.")
    if array.dtype.name == "bfloat16":
        array, tensor = array.astype(np.float32), tensor.float()
    np.testing.assert_array_equal(array, tensor.detach().numpy())


@pytest.mark.parametrize("options", FORMATS, ids=str)
def test_every_tensor_is_what_was_saved(tmp_path, options):
    tensors = content()
    torch.save(tensors, tmp_path / "tensors.pt", **options)
    found = torch_file.load(tmp_path / "tensors.pt")
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        same(found[name], tensor)


@pytest.mark.parametrize("options", FORMATS, ids=str)
def test_a_state_dict_in_a_training_checkpoint(tmp_path, options):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(5, 3)).sum().backward()
    optimizer.step()
    state = {
        "epoch": 3,
        "note": "a string",
        "loss": 0.5,
        "flags": (None, True, 2**70, -1, b"bytes"),
        "size": torch.Size([2, 3]),
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "order": collections.OrderedDict(a=1),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    torch.save(state, tmp_path / "checkpoint.pt", **options)
    found = torch_file.load(tmp_path / "checkpoint.pt", "model")
    assert list(found) == list(model.state_dict())
    for name, tensor in model.state_dict().items():
        same(found[name], tensor)
    with pytest.raises(InputError, match=r"keys: 'model'$"):
        torch_file.load(tmp_path / "checkpoint.pt")


@pytest.mark.parametrize("options", FORMATS, ids=str)
def test_a_whole_module_is_refused_by_name(tmp_path, options):
    torch.save(torch.nn.Linear(3, 4), tmp_path / "module.pt", **options)
    with pytest.raises(InputError, match=r"module.pt holds code: 'torch.nn.modules.linear.Linear'"):
        torch_file.load(tmp_path / "module.pt")


def test_an_expanded_tensor_is_refused(tmp_path):
    torch.save({"a": torch.zeros(1).expand(10)}, tmp_path / "a.pt")
    with pytest.raises(InputError, match="expanded"):
        torch_file.load(tmp_path / "a.pt")
