"""Runs instances on this machine: processes, cgroups, CPU shares, image pulls."""
