"""The mini model's face restorer: an IRControlNet trained on drawn, damaged faces; `miniworld/restorer` holds it."""
