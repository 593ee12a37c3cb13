"""The upper floor: networks, faces, tracking, the three stages and their training. It may import all of utils/.

Rooms, in the order in which they may import (each may use those before it): layers, audio, face3d, motion, lipsync,
tracking, editing, generation, training, pipeline, evaluation. docs/architecture.md has the picture.
"""
