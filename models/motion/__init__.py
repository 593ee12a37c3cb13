"""Stage 1: the network from audio features to expression coefficients, and post-processing of its output.
Not here: its training (training), files (pipeline).
May import: utils, layers to face3d.
"""
