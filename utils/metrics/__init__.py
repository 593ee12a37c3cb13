"""Figures of quality, their intervals, and reports about them; pure functions and tables.
Not here: metrics by networks (models/lipsync, models/evaluation).
May import: core to training.
"""
