"""The only code that decodes or encodes video and sound; the times of frames, motion and sound.
Not here: faces, people or words in it.
May import: core, files, weights.
"""
