"""MediaPipe's 468 landmarks by name: the index sets that more than one file needs."""

from __future__ import annotations

# Contours run from the image's left mouth corner over the upper lip and back along the lower one. 0 and 17, 13 and 14
# are the middles of the upper and lower lip.
OUTER_LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
UPPER_INNER_LIP, LOWER_INNER_LIP = 13, 14
UPPER_OUTER_LIP, LOWER_OUTER_LIP = 0, 17
MOUTH_CORNERS = (61, 291)

EYE_CONTOURS = (
    *(33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246),  # the person's right eye
    *(263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466),  # left
)
NOSE = (168, 6, 197, 195, 5, 4, 1, 98, 97, 2, 326, 327)  # bridge from root to tip, then the underside
OUTER_EYE_CORNERS = (33, 263)

# From the top of the forehead to the image's right, around the chin and back.
FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)

# Points of the face oval that have no counterpart on the BFM's mesh (Real3DPortrait, landmark loss).
UNMATCHED_IN_BFM = (93, 127, 132, 234, 323, 356, 361, 454)
