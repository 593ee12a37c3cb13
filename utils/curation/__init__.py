"""From raw videos to training clips: choice, records, reports, work queues.
Not here: detectors (models/tracking).
May import: core to data.
"""
