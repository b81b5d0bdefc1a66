"""Both ways against the library of safetensors."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
library = pytest.importorskip("safetensors.torch", reason="parity needs safetensors: see the extra 'parity'")

from diffusion_jax.pretrained import safetensors_file  # noqa: E402

BASE = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
TENSORS = {
    "float": BASE,
    "half": BASE.half(),
    "bfloat16": BASE.bfloat16(),
    "double": BASE.double(),
    "long": torch.arange(7),
    "bool": torch.arange(7) % 2 == 0,
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
}


def as_float(array):
    return np.asarray(array).astype(np.float64)


def test_files_of_the_library_are_read(tmp_path):
    library.save_file(TENSORS, tmp_path / "a.safetensors", metadata={"format": "pt"})
    found = safetensors_file.load(tmp_path / "a.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].shape == tuple(tensor.shape)
        assert found[name].dtype.name == str(tensor.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(as_float(found[name]), tensor.double().numpy())


def test_the_library_reads_our_files(tmp_path):
    library.save_file(TENSORS, tmp_path / "theirs.safetensors")
    arrays = safetensors_file.load(tmp_path / "theirs.safetensors")
    shapes = {name: (array.dtype, array.shape) for name, array in arrays.items()}
    safetensors_file.write(tmp_path / "ours.safetensors", shapes, map(np.asarray, arrays.values()))
    found = library.load_file(tmp_path / "ours.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)
