"""Operations on pictures, boxes, landmarks, masks and depth; pure functions on arrays.
Not here: networks, and files other than pictures.
May import: core to media.
"""
