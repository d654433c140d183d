"""Slots, offers, templates, ports and the persistent record of instances."""
