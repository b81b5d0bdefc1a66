"""A few of the damages of `experiments.strangers.damages`, drawn from a seed."""

import pytest

from experiments.strangers import damages

pytestmark = pytest.mark.slow


def test_no_damage_leads_to_another_state_or_is_kept_silent(tmp_path):
    found = list(damages.campaign(tmp_path, 25, seed=1))
    for reader in ("train", "sample"):
        wrong = [(one["damage"], one[reader], one["told"][reader]) for one in found if one[reader] in damages.WRONG]
        assert not wrong
        # They were damages: some did harm, and some did none.
        assert {one[reader] for one in found} >= {"harmless", "said"}


def test_another_state_and_a_silent_fallback_would_be_noticed(tmp_path):
    """Control: what is read is altered, or an older checkpoint is taken for the newest."""
    run = damages.Run(tmp_path / "run", 0)
    ema = run.saved[40][0]["ema"]
    altered = {name: value + (name == "out") for name, value in ema.items()}

    def outcome(step, found):
        return run._outcome(lambda: (step, found), lambda step: run.saved[step][0]["ema"])[0]

    assert outcome(40, ema) == "harmless"
    assert outcome(40, altered) == outcome(30, ema) == "silently another state"
    assert outcome(30, run.saved[30][0]["ema"]) == "silent fallback"
    assert outcome(0, None) == "silent restart"
