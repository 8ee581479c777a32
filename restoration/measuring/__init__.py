"""Measures of restored pictures, and sheets that show them."""
