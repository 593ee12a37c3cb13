"""The lower floor: files, media, images and numbers, without networks. It never imports models/.

Rooms, in the order in which they may import (each may use those before it): core, files, weights, media, imaging,
people, results, data, curation, training, metrics. docs/architecture.md has the picture.
"""
