"""When packets leave each link, CPU and pod: FIFO stations, for a whole batch at once."""
