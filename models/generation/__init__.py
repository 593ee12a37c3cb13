"""Stage 3: VAE, generator, refiner, blending into the frame.
Not here: motion and depth (stages 1 and 2).
May import: utils, layers to editing.
"""
