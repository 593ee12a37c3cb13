"""The only code that decodes or encodes video and sound; the times of frames, motion and sound.
Not here: what is seen or said in it.
May import: core, files, weights.
"""
