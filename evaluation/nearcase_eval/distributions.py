"""Tail probabilities from SciPy, imported on first use: most audits need them late, and start-up counts."""

from __future__ import annotations

import math
from statistics import NormalDist


def normal_p(z: float) -> float:
    """Returns the two-sided p of a normal deviate, exact far into the tails."""
    return math.erfc(abs(z) / math.sqrt(2.0))


def chi_square_p(value: float, df: int) -> float:
    """Returns the upper tail of the chi-square distribution."""
    from scipy.special import chdtrc

    return float(chdtrc(df, value))


def beta_quantile(p: float, a: float, b: float) -> float:
    """Returns the quantile of the beta distribution (Clopper-Pearson limits are such)."""
    from scipy.special import betaincinv

    return float(betaincinv(a, b, p))


def binomial_cdf(k: int, n: int, p: float) -> float:
    """Returns P(X <= k) for X binomial (n, p)."""
    from scipy.special import bdtr

    return float(bdtr(k, n, p)) if k >= 0 else 0.0


def power_z(power: float) -> float:
    """Returns the one-sided normal quantile: 0.84 for a power of 0.80."""
    return NormalDist().inv_cdf(power)
