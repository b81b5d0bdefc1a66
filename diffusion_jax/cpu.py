"""What is asked of XLA on CPUs, before it starts."""

import os

import jaxlib

FLAG = "--xla_cpu_experimental_ynn_fusion_type"
MEASURED = range(10, 13)  # jaxlib 0.10 to 0.12


def prefer_eigen(environment=os.environ, version: str = jaxlib.__version__):
    """Have Eigen compute convolutions, by a flag in XLA_FLAGS. Command lines do; call it before JAX is first used.

    XLA hands convolutions on CPUs to YNNPACK since jaxlib 0.10. Forward that is a little slower than Eigen, and the
    gradient with respect to the weights of a 3x3 convolution over 32x32 pixels is four times slower; a training step
    of the CIFAR-10 network takes 1.4 to 1.6 times as long (docs/performance.md). Products and sums stay with YNNPACK.

    Nothing is changed where XLA_FLAGS speaks of it already, nor for a jaxlib that was not tried: XLA ends the process
    at a flag that it does not know. GPUs and TPUs are not concerned.

    Args:
      environment: where XLA_FLAGS is, a mapping of strings.
      version: jaxlib's.
    """
    given = environment.get("XLA_FLAGS", "")
    major, minor, *_ = version.split(".")
    if major == "0" and minor.isdigit() and int(minor) in MEASURED and FLAG not in given:
        environment["XLA_FLAGS"] = f"{given} {FLAG}=-individual_convolution".strip()
