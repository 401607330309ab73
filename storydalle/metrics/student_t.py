"""Student's t distribution, also for degrees of freedom that are no whole number: probabilities and quantiles."""

import math
from functools import cache

SMALLEST, MOST_TERMS, EXACT = 1e-300, 10_000, 1e-15


def two_sided_p(t: float, degrees: float) -> float:
    """The probability of a value as far from zero as ``t``: I_x(degrees / 2, 1/2) at x = degrees / (degrees + t^2)."""
    return incomplete_beta(degrees / (degrees + t * t), degrees / 2, 0.5) if math.isfinite(t) else 0.0


@cache
def quantile(degrees: float, level: float = 0.95) -> float:
    """The value that |t| exceeds with probability 1 - level, by bisection; 12.706 for one degree of freedom."""
    low, high = 0.0, 1.0
    while two_sided_p(high, degrees) > 1 - level:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if two_sided_p(middle, degrees) > 1 - level else (low, middle)
    return high


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function I_x(a, b), by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # the fraction converges quickly on the other side
        return 1 - incomplete_beta(1 - x, b, a)
    scale = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    return math.exp(scale) / (a * continued_fraction(x, a, b))


def continued_fraction(x: float, a: float, b: float) -> float:
    """1 + d1 / (1 + d2 / (1 + ...)) with the coefficients of DLMF 8.17.23, by Lentz's algorithm."""
    value = numerator = 1.0
    denominator = 0.0
    for number in range(1, MOST_TERMS):
        m = number // 2
        above = m * (b - m) * x if number % 2 == 0 else -(a + m) * (a + b + m) * x
        term = above / ((a + 2 * m - 1) * (a + 2 * m) if number % 2 == 0 else (a + 2 * m) * (a + 2 * m + 1))
        denominator = 1 / (1 + term * denominator or SMALLEST)
        numerator = 1 + term / numerator or SMALLEST
        value *= numerator * denominator
        if abs(numerator * denominator - 1) < EXACT:
            break
    return value
