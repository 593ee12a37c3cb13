"""Learners, losses by networks, and validation of every training.
Not here: the loop itself (utils/training).
May import: utils, layers to generation.
"""
