"""The types that stoker speaks on the network, shared by controller, SDK and PyWorker.

Types grow, never shift: a new field has a default and a line in HISTORY.md.
"""
