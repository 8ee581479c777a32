"""The restorer B = {G, E}: its modules, its files and their layouts."""
