"""Finished clips compared with their originals; networks that compare images.
Not here: training.
May import: utils, layers to pipeline.
"""
