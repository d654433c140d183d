"""Types on the network, shared by controller, SDK and PyWorker.

Changes are additive: a new field has a default and an entry in HISTORY.md.
"""
