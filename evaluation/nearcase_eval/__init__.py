"""Metrics with intervals, operating points and fairness gaps: pure functions over arrays, float64, ties exact."""
