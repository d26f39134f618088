"""What does it mean? Spread, hops, comparisons, closed forms; DataFrames in and out."""
