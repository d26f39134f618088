"""From a Recording to DataFrames, and the result folder: Parquet tables and a manifest for each run."""
