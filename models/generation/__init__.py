"""Stage 3: VAE, generator, refiner, blending into the frame.
Not here: how the motion came about.
May import: utils, layers to editing.
"""
