"""Measurements of speed and accuracy; nothing here is imported by the packages."""
