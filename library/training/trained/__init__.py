"""What is trained: network modules, embeddings and whole modules, and the plugins that make them."""
