"""Operations on images, boxes, landmarks, masks and depth: functions on arrays.
Not here: networks, and files other than the mesh's triangles.
May import: core to media.
"""
