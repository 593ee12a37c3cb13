"""Figures of quality, their intervals, and reports about them; pure functions and tables.
Not here: networks that judge (models/lipsync, models/evaluation).
May import: core to training.
"""
