"""The training loop, its log and checkpoints, schedules, averages and losses of all trainings.
Not here: networks (models/training).
May import: core to curation.
"""
