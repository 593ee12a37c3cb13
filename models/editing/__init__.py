"""Stage 2: a tracked clip gets a new expression and its depth.
Not here: generation of pictures.
May import: utils, layers to tracking.
"""
