"""Who is who in a clip: shots, persons, speakers, and in which frames a face can be edited.
Not here: detectors and trackers (models/tracking).
May import: core to imaging.
"""
