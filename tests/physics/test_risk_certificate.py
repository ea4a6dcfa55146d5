"""Certificates: what they say, what they refuse."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from allpet_physics import Certificate
from allpet_physics.errors import InputError
from allpet_physics.pac_bayes import (
    best_over_grid,
    catoni_bound,
    certified_bound,
    mcallester_bound,
    monte_carlo_risk_bound,
    seeger_maurer_bound,
)


def certificate(**changes):
    given = {"empirical_risk": 0.1, "kl": 1.5, "n": 60, "delta": 0.04, "delta_monte_carlo": 0.01, "draws": 300,
             "posterior_spread": 0.02}
    bound = certified_bound(*(given[name] for name in ("empirical_risk", "draws", "kl", "n", "delta",
                                                       "delta_monte_carlo")))
    return Certificate(**({"bound": bound} | given | changes))


def test_a_certificate_says_in_one_sentence_what_it_rests_on():
    said = str(certificate())
    assert said.startswith("Certified: ")
    assert "60 independent patients and 300 draws" in said
    assert "at most 0.05" in said
    assert float(said.partition("is at most ")[2].partition(",")[0]) >= certificate().bound
    assert said.endswith(".")
    assert "\n" not in said


def test_what_says_nothing_is_called_vacuous():
    assert not certificate().vacuous
    for c in (certificate(bound=1.0), certificate(bound=1.3), certificate(bound=0.99991), certificate(threshold=0.2)):
        assert c.vacuous
        assert str(c).startswith("Vacuous: ")
    assert "no better than 0.2, known without data" in str(certificate(threshold=0.2))
    assert certificate(bound=0.5, threshold=0.5).vacuous
    assert not certificate(bound=0.4999, threshold=0.5).vacuous


def test_fourteen_patients_and_a_checkpoint_of_many_parameters_are_vacuous():
    kl = 1000.0
    assert certificate(kl=kl, n=14, bound=seeger_maurer_bound(0.15, kl, 14, 0.04)).vacuous


def test_slices_cannot_pass_for_patients():
    for bound in (seeger_maurer_bound, mcallester_bound, partial(catoni_bound, rate=1.0)):
        with pytest.raises(InputError, match=r"bound must be at least .* 14 patients .* not a certificate"):
            certificate(n=14, bound=bound(monte_carlo_risk_bound(0.1, 300, 0.01), 1.5, 500, 0.04))
    with pytest.raises(InputError, match="unit must be what is independent, such as patients, but was 'Slices'"):
        certificate(n=500, unit="Slices", bound=seeger_maurer_bound(0.2, 1.5, 500, 0.04))
    assert certificate(n=500, unit="phantoms", bound=seeger_maurer_bound(0.2, 1.5, 500, 0.04)).unit == "phantoms"


@settings(deadline=None, max_examples=100)
@given(st.floats(0, 1), st.integers(1, 1000), st.floats(0, 500), st.integers(1, 1000), st.floats(1e-6, 0.9),
       st.floats(1e-6, 0.9), st.floats(1e-3, 30))
def test_every_bound_of_the_library_is_accepted(risk, draws, kl, n, delta, delta_monte_carlo, rate):
    assume(delta + delta_monte_carlo < 1)
    measured = monte_carlo_risk_bound(risk, draws, delta_monte_carlo)
    bounds = [bound(measured, kl, n, delta) for bound in (seeger_maurer_bound, mcallester_bound,
                                                          partial(catoni_bound, rate=rate))]
    bounds.append(best_over_grid(seeger_maurer_bound, measured, [kl, kl], n, delta).bound)
    for bound in bounds:
        c = Certificate(bound=bound, empirical_risk=risk, kl=kl, n=n, delta=delta, delta_monte_carlo=delta_monte_carlo,
                        draws=draws, posterior_spread=1.0)
        assert c.vacuous == (bound > 0.9999 + 1e-10)


def test_it_is_frozen_and_goes_to_json():
    c = certificate(kl=np.float32(1.5), n=np.int64(60))
    with pytest.raises(dataclasses.FrozenInstanceError):
        c.bound = 0.0
    saved = json.loads(json.dumps(dataclasses.asdict(c)))
    assert saved["vacuous"] is False
    assert saved["n"] == 60


@pytest.mark.parametrize(("changes", "message"), [
    ({"n": 0}, "n must be an integer of at least 1"),
    ({"n": 14.0}, "n must be an integer of at least 1"),
    ({"n": True}, "n must be an integer of at least 1"),
    ({"draws": 0}, "draws must be an integer of at least 1"),
    ({"kl": np.inf}, "point estimate is not a certificate"),
    ({"posterior_spread": 0}, "point estimate is not a certificate"),
    ({"posterior_spread": -1}, "posterior_spread must be at least 0"),
    ({"kl": np.nan}, "kl must be at least 0"),
    ({"kl": [1.0, 2.0]}, "kl must be one number"),
    ({"delta": 0}, "delta must be between 0 and 1"),
    ({"delta": 1.0}, "delta must be between 0 and 1"),
    ({"delta_monte_carlo": 0}, "delta_monte_carlo must be between 0 and 1"),
    ({"delta": 0.6, "delta_monte_carlo": 0.4}, "must sum to less than 1"),
    ({"empirical_risk": 1.01}, r"empirical_risk must be in \[0, 1\]"),
    ({"empirical_risk": -0.01}, r"empirical_risk must be in \[0, 1\]"),
    ({"empirical_risk": np.nan}, "empirical_risk must be finite"),
    ({"bound": np.nan}, "bound must be a finite number"),
    ({"bound": 0.05}, "bound must be at least"),
    ({"unit": " "}, "unit must name what n counts"),
    ({"threshold": 0}, "threshold must be above 0"),
    ({"threshold": 1.5}, r"threshold must be in \[0, 1\]"),
])
def test_what_it_refuses_is_one_sentence(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        certificate(**changes)
    said = str(caught.value)
    assert said.endswith(".")
    assert ". " not in said
    assert "\n" not in said
