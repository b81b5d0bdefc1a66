"""Every test sees eight simulated devices; the setting must precede the first import of JAX."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
flags = os.environ.get("XLA_FLAGS", "")
if "host_platform_device_count" not in flags:
    os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count=8".strip()

import jax  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture
def x64():
    """Double precision, so that identities hold to rounding and not to a tolerance."""
    with jax.enable_x64(True):
        yield
