"""Features become expression (stage 1's network and what is done to its output).
Not here: training of it (training), and files (pipeline).
May import: utils, layers to face3d.
"""
