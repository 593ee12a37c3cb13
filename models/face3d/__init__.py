"""Coefficients, mesh and depth: the 3D face model, its fitting, and the renderers.
Not here: clips; a function here sees arrays of frames.
May import: utils, layers, audio.
"""
