"""What all trainings share: loop, log, checkpoints of a run, optimiser settings, losses.
Not here: networks (models/training).
May import: core to curation.
"""
