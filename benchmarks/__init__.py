"""Measurements: how good and how fast, side by side with what else there is. None of them is a test."""
