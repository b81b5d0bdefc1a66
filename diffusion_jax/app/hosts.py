"""Several hosts that work on one thing: each is given the same command, and finds the others."""

import argparse
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from diffusion_jax.core.errors import InputError, RunError

Result = TypeVar("Result")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that `join` reads."""
    hosts = parser.add_argument_group(
        "several hosts", "Give the same command on every host; on TPU pods and under Slurm --distributed is enough."
    )
    hosts.add_argument("--distributed", action="store_true", help="join the other hosts through jax.distributed")
    hosts.add_argument("--coordinator", metavar="HOST:PORT", help="address of host 0 (implies --distributed)")
    hosts.add_argument("--hosts", type=int, metavar="N", help="number of hosts, with --coordinator")
    hosts.add_argument("--host", type=int, metavar="I", help="this host, 0 to N - 1, with --coordinator")


def join(options: argparse.Namespace) -> None:
    """Join the other hosts, where the options say so. Call it before JAX is first used.

    Raises:
      InputError: the options do not fit together, or the others are not found.
    """
    given = [options.coordinator, options.hosts, options.host]
    if any(x is not None for x in given) and any(x is None for x in given):
        raise InputError("--coordinator, --hosts and --host go together; give all three, or only --distributed")
    if options.coordinator and not options.coordinator.rpartition(":")[2].isdigit():
        raise InputError(f"--coordinator {options.coordinator} has no port; give HOST:PORT")
    if options.coordinator and not 0 <= options.host < options.hosts:
        raise InputError(f"--host {options.host} of --hosts {options.hosts}: give 0 to {options.hosts - 1}")
    if options.distributed or options.coordinator:
        try:
            jax.distributed.initialize(options.coordinator, options.hosts, options.host)
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"cannot join the other hosts ({reason}); without a cluster that JAX knows, give --coordinator, "
                "--hosts and --host, or take this host alone, without --distributed"
            ) from error


def together(work: Callable[[], Result]) -> Result:
    """What `work()` gives here, once it is done on every host.

    A host that failed alone would leave the others waiting for it.

    Raises:
      RunError: it failed on another host. What it raises on this one comes out as it is.
    """
    if jax.process_count() == 1:
        return work()
    done, failed = [], None
    try:
        done.append(work())
    except Exception as error:
        failed = error
    failures = np.ravel(multihost_utils.process_allgather(np.array(failed is not None)))
    if failed is not None:
        raise failed
    if failures.any():
        raise RunError(
            f"host {np.argmax(failures)} of {len(failures)} stopped, and says why; what is done is kept: mend it and "
            "give the same command again on every host"
        )
    return done[0]
