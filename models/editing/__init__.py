"""Stage 2: 3D reconstruction of the speaker's face, its new expressions, and their depth images.
Not here: generation of images.
May import: utils, layers to tracking.
"""
