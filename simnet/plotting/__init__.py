"""Pictures of what the analysis found: a DataFrame and `ax` in, `ax` out."""
