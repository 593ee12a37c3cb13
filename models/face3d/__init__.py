"""Coefficients, mesh and depth: the 3D face model, its fitting, and the renderers.
Not here: clips; functions here take arrays of frames.
May import: utils, layers, audio.
"""
