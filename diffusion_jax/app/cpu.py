"""Settings of XLA and of its memory on CPUs, made before XLA starts."""

import ctypes
import os
import re
import sys
from collections.abc import MutableMapping

import jax
import jaxlib

FLAG = "--xla_cpu_experimental_ynn_fusion_type"
EIGEN = f"{FLAG}=-individual_convolution"
DEVICES = "--xla_force_host_platform_device_count"
MOST = 8  # devices: each holds the parameters
MEASURED = range(10, 13)  # jaxlib 0.10 to 0.12
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of glibc's mallopt, in malloc.h


def prefer_eigen(environment: MutableMapping[str, str] = os.environ, version: str = jaxlib.__version__):
    """Have Eigen compute convolutions, by a flag in XLA_FLAGS. Command lines do; call it before JAX is first used.

    XLA hands convolutions on CPUs to YNNPACK since jaxlib 0.10. Forward that is a little slower than Eigen, and the
    gradient with respect to the weights of a 3x3 convolution over 32x32 pixels is four times slower; a training step
    of the CIFAR-10 network takes 1.4 to 1.6 times as long (docs/measured/performance.md). Products and sums stay with
    YNNPACK.

    Nothing changes where a CPU is several devices: a program over them computes wrong numbers with Eigen's
    convolutions in a loop, the first examples of each device's share (jaxlib 0.10.2; docs/measured/performance.md).
    Nor does it where XLA_FLAGS has the flag already, nor for a jaxlib that was not tried: XLA ends the process at an
    unknown flag. GPUs and TPUs are not affected.

    Args:
      environment: where XLA_FLAGS and JAX_NUM_CPU_DEVICES are, a mapping of strings.
      version: jaxlib's.
    """
    given = environment.get("XLA_FLAGS", "")
    if _several(environment):
        return
    major, minor, *_ = version.split(".")
    if major == "0" and minor.isdigit() and int(minor) in MEASURED and FLAG not in given:
        environment["XLA_FLAGS"] = f"{given} {EIGEN}".strip()


def one_device_a_core(environment: MutableMapping[str, str] = os.environ, cores: int | None = None):
    """Have JAX see each CPU core as a device, up to 8, by a flag in XLA_FLAGS. Call it before JAX is first used.

    `sample` and `evaluate` do, and split a batch over them: a core that computes some images alone waits for no
    other. On two cores that took 0.6 of the time with the digits' network, and 0.92 to 0.96 with that of CIFAR-10.
    Training does not, for its devices add up gradients and update all parameters each, which took longer.

    What `prefer_eigen` asked for is taken back, for it goes wrong on several devices. Nothing changes where XLA_FLAGS
    has the flag already; a count of 1 there turns this off. GPUs and TPUs are not affected.

    Args:
      environment: where XLA_FLAGS is, a mapping of strings.
      cores: how many there are; None for those that this process may use.
    """
    given = environment.get("XLA_FLAGS", "")
    if DEVICES not in given:
        count = min(cores or _cores(), MOST)
        rest = given.replace(EIGEN, "").strip() if count > 1 else given
        environment["XLA_FLAGS"] = f"{rest} {DEVICES}={count}".strip()


def keep_memory():
    """Have a step compute in the memory of the one before it. `train` does; call it before JAX is first used.

    XLA takes one block for all intermediate values of a step, hundreds of megabytes, and gives it back at the end.
    glibc asks the system for it each time, which hands it out page by page, each cleared: a tenth of a step. Told
    to keep what it has, glibc does so for the main thread alone; so that one has to run programs: JAX does not
    return from a step before it is computed. On GPUs and TPUs it does, as ever.

    A step takes 0.8 to 0.93 of the time, and what a process once used stays with it (docs/measured/performance.md).
    Programs over several devices gain nothing, for other threads run them. Where the C library is another one
    (macOS, Windows, musl), nothing is changed.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)  # never
        jax.config.update("jax_cpu_enable_async_dispatch", False)


def _several(environment: MutableMapping[str, str]) -> bool:
    """Whether a CPU is several devices, as far as the environment says."""
    found = re.findall(rf"{DEVICES}=(\d+)", environment.get("XLA_FLAGS", ""))
    return any(int(count) > 1 for count in [*found, environment.get("JAX_NUM_CPU_DEVICES") or "1"])


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
