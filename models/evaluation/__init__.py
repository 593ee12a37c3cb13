"""Finished clips compared with their originals; networks that judge pictures.
Not here: training.
May import: utils, layers to pipeline.
"""
