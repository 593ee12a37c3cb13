"""Features become expression: stage 1's network and post-processing of its output.
Not here: training of it (training), and files (pipeline).
May import: utils, layers to face3d.
"""
