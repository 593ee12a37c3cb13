"""Raw videos become training clips: choice, records, reports, work queues.
Not here: detectors (models/tracking).
May import: core to data.
"""
