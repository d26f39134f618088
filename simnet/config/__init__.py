"""What did the user ask? YAML, JSON and manifests, checked, with every mistake at once; depends on `model` only."""
