"""From frames to one person's landmarks: detectors, trackers, choice of the speaker, survey of raw videos.
Not here: 3D reconstruction (face3d) and files of results.
May import: utils, layers to lipsync.
"""
