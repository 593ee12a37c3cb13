"""People of a clip: shots, tracklets, persons, the speaker flag, and the frames in which a face can be edited.
Not here: detectors and trackers (models/tracking).
May import: core to imaging.
"""
