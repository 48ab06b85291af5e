"""Integers times real numbers against numbers worked by hand and fractions."""

from fractions import Fraction

import numpy as np
import pytest

from lightning_prune.export.fixed_point import Multiplier, multiplied, saturated


def test_multiplier_worked_by_hand():
    """M = 2^-7 * 0.7696732, and (18651 steps of 0.0180392157 * 0.01) is 122.15 steps of 0.03 from zero-point 10."""
    by = Multiplier.of(4.6 / 255 * 0.01 / 0.03)
    assert (by.mantissa, by.shift) == (1652860617, 7)
    assert by.mantissa / 2**31 == pytest.approx(0.7696732, abs=1e-7)
    assert multiplied(np.array([18651]), by) + 10 == 122


def test_halves_go_to_the_even_neighbour():
    numbers = np.array([1, 3, 5, 7, -1, -3, -5, -7], np.int32)
    assert multiplied(numbers, Multiplier.of(0.5)).tolist() == [0, 2, 2, 4, 0, -2, -2, -4]


def test_rest_above_a_half_goes_up():
    assert multiplied(np.array([-3, -1, 1, 3], np.int32), Multiplier.of(0.75)).tolist() == [-2, -1, 1, 2]


@pytest.mark.parametrize(("factor", "shift"), [(1.0, -1), (3.0, -2), (2.0**30, -31), (1 - 2.0**-40, -1)])
def test_factors_of_one_and_more(factor, shift):
    by = Multiplier.of(factor)
    assert by.shift == shift
    assert multiplied(np.array([-5, 7], np.int32), by).tolist() == [-5 * round(factor), 7 * round(factor)]


def test_factors_out_of_reach():
    most = np.array([2**31 - 1, -(2**31) + 1, 0], np.int32)
    assert multiplied(most, Multiplier.of(2.0**-33)).tolist() == [0, 0, 0]
    assert saturated(multiplied(np.sign(most), Multiplier.of(1e20)), np.dtype(np.uint8)).tolist() == [255, 0, 0]


def test_products_against_fractions():
    generator = np.random.default_rng(0)
    numbers = generator.integers(-(2**31) + 1, 2**31, 2000).astype(np.int32)
    factors = np.exp2(generator.uniform(-33, 30, 2000))
    by = Multiplier.of(factors)
    assert by.mantissa.dtype == by.shift.dtype == np.int32
    for number, factor, mantissa, shift, found in zip(numbers, factors, *by, multiplied(numbers, by), strict=True):
        held = Fraction(int(mantissa), 2 ** (31 + int(shift)))
        assert found == round(int(number) * held)  # halves to even
        assert factor < 2**-32 or abs(held / Fraction(factor) - 1) <= Fraction(1, 2**31)
