"""What is proved on the mini model, each as a table that one command makes: `python -m miniworld.prove WHAT`."""
