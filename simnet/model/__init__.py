"""The nouns that all packages share: frozen values without behaviour of their own."""
