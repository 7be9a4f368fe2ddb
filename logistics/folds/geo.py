"""Distances on the sphere."""

from typing import Final

import numpy as np

from streams.batch.columns import Float64, Int64

EARTH_RADIUS_KM: Final = 6371.0088
"""Mean radius (IUGG, R1)."""


def haversine_mm(latitude_1: Float64, longitude_1: Float64, latitude_2: Float64, longitude_2: Float64) -> Int64:
    """Great-circle distance in whole millimetres between points in degrees (Sinnott 1984, "Virtues of the haversine").

    Whole numbers, so that a sum of distances does not depend on how it was grouped.
    """
    phi_1, phi_2 = np.radians(latitude_1), np.radians(latitude_2)
    half_phi = np.sin((phi_2 - phi_1) / 2.0)
    half_lambda = np.sin(np.radians(longitude_2 - longitude_1) / 2.0)
    chord = half_phi * half_phi + np.cos(phi_1) * np.cos(phi_2) * (half_lambda * half_lambda)
    distance = 2.0 * EARTH_RADIUS_KM * 1e6 * np.arcsin(np.sqrt(np.minimum(chord, 1.0)))
    rounded: Int64 = np.rint(distance).astype(np.int64)
    return rounded
