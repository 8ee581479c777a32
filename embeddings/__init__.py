"""Embedding initializers: plugins that say where the vectors of a new word start. `python -m embeddings` has commands.

A plugin is a module with `create_initializer(args, **kwargs)`, named by its import path as `embedding_initializer`;
`embeddings.contract` says what it may be asked and what it is given. Plugins know nothing but that contract.
"""
