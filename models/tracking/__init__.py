"""Frames become one person's landmarks: detectors, trackers, choice of the speaker.
Not here: 3D reconstruction (face3d) and files of results.
May import: utils, layers to lipsync.
"""
