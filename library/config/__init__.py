"""What a person asks for: options, configuration files, dataset descriptions; checked before torch is imported."""
