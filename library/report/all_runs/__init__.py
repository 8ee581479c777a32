"""All runs below a folder on one page, and the server that shows it."""
