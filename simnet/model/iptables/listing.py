def looks_like_listing(text): return False
